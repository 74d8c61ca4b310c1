// Package docshell finds the shell commands in the Markdown pages of this
// project, for the tests that run or check each of them.
package docshell

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Command is a command line that a page shows.
type Command struct {
	File string // "README.md", "docs/daemon.md"
	Line int    // where it stands
	// Text is the command without prompt and comment, on one line.
	Text string
	// Output is what the page shows below it, up to the next command.
	Output []string
	// Inline is for a command within a sentence, which often leaves a part to
	// the reader: "iscsiadm -m session -r SID -R", "iscsiadm -m node …".
	Inline bool
}

// Pages returns the paths of all pages, relative to root.
func Pages(root string) ([]string, error) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	out := []string{"README.md"}
	for _, p := range pages {
		out = append(out, "docs/"+filepath.Base(p))
	}
	return out, nil
}

// Read returns the commands of a page in their order.
func Read(root, page string) ([]Command, error) {
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		return nil, err
	}
	return Parse(page, string(b)), nil
}

// programs are the words that begin a command where there is no prompt.
var programs = []string{
	"iscsiadm", "iscsid", "iscsi-target", "iscsi-iname", "make", "go", "curl", "mount", "umount", "mkfs.ext4", "fsck.ext4", "systemctl",
	"journalctl", "apt", "apt-get", "dpkg", "modprobe", "qemu-img", "nbdinfo", "nbdcopy", "nbd-client", "fio", "kubectl", "docker", "podman",
	"nsenter", "chroot", "multipath", "multipathd", "udevadm", "lsblk", "promtool", "tshark", "wireshark", "kill", "sudo", "test/deps", "test/bench/run",
}

// spans are those of programs that a sentence shows a command of.
var spans = regexp.MustCompile("`((?:iscsiadm|iscsid|iscsi-target|iscsi-iname) [^`]+)`")

// Parse returns the commands in the text of a page: those in fenced blocks for a
// shell or for nothing, those in indented blocks, and those in backquotes.
func Parse(file, text string) []Command {
	var all []Command
	var last *Command // whose output may follow
	fenced, shell, indented := false, false, false
	joined := "" // a command that goes on in the next line
	blank := true
	for i, line := range strings.Split(text, "\n") {
		if fence, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "```"); ok {
			fenced = !fenced
			lang := strings.TrimSpace(fence)
			shell = fenced && (lang == "" || lang == "sh" || lang == "bash" || lang == "console" || lang == "shell")
			last, joined = nil, ""
			continue
		}
		if !fenced {
			code, ok := strings.CutPrefix(line, "    ")
			indented = ok && (indented || blank)
			blank = strings.TrimSpace(line) == ""
			if !indented {
				if !blank {
					last = nil
				}
				for _, m := range spans.FindAllStringSubmatch(line, -1) {
					all = append(all, Command{File: file, Line: i + 1, Text: m[1], Inline: true})
				}
				indented = indented || blank && last != nil
				continue
			}
			line = code
		} else if !shell {
			continue
		}
		cmd, ok := command(line, joined, fenced)
		switch {
		case !ok && last != nil && strings.TrimSpace(line) != "":
			last.Output = append(last.Output, line)
		case !ok:
		case strings.HasSuffix(cmd, `\`):
			joined = strings.TrimSuffix(cmd, `\`)
		default:
			joined = ""
			all = append(all, Command{File: file, Line: i + 1, Text: cmd})
			last = &all[len(all)-1]
		}
	}
	return all
}

// comment is what may stand behind a command.
var comment = regexp.MustCompile(`\s+# .*$`)

// command returns the command in a line of a block. A "#" is a prompt in front of
// every word in an indented block; in a fenced one it may begin a comment.
func command(line, before string, fenced bool) (string, bool) {
	text := strings.TrimSpace(line)
	if before != "" {
		return comment.ReplaceAllString(before+text, ""), true
	}
	for _, prompt := range []string{"# ", "$ "} {
		if rest, ok := strings.CutPrefix(line, prompt); ok && (!fenced || known(rest)) {
			return comment.ReplaceAllString(rest, ""), true
		}
	}
	if text == line && known(text) {
		return comment.ReplaceAllString(text, ""), true
	}
	return "", false
}

// assignment is a variable before a command.
var assignment = regexp.MustCompile(`^[A-Z_]+=\S*$`)

// known reports whether a text begins as a command does.
func known(text string) bool {
	word := Program(text)
	return slices.Contains(programs, word)
}

// Program returns the name of the program of a command, without its directory
// where that is one of the system's.
func Program(text string) string {
	for word := range strings.FieldsSeq(text) {
		if assignment.MatchString(word) {
			continue
		}
		for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/", "bin/"} {
			word = strings.TrimPrefix(word, dir)
		}
		return word
	}
	return ""
}
