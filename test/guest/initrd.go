package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// initrdModules lead from a bare kernel to the host's root.
var initrdModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// writeInitrd makes an initial RAM disk with qemuinit and the modules that it
// loads, in order.
func (k kernel) writeInitrd(ctx context.Context, path string) error {
	order, err := k.loadOrder(initrdModules)
	if err != nil {
		return err
	}
	var a archive
	init, err := buildInit(ctx)
	if err != nil {
		return err
	}
	a.dir("modules")
	a.file("init", 0o755, init)
	var names []string
	for _, m := range order {
		image, err := readModule(ctx, filepath.Join(k.modules, k.version, m))
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(m), ".xz")
		a.file("modules/"+name, 0o644, image)
		names = append(names, name)
	}
	a.file("modules/order", 0o644, []byte(strings.Join(names, "\n")))
	return os.WriteFile(path, a.finish(), 0o644)
}

// loadOrder returns the files of modules and of all that they depend on, in an
// order in which they can be loaded, by the kernel's modules.dep.
func (k kernel) loadOrder(modules []string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(k.modules, k.version, "modules.dep"))
	if err != nil {
		return nil, err
	}
	depends := map[string][]string{} // by path
	paths := map[string]string{}     // by module name
	for line := range strings.Lines(string(b)) {
		path, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		depends[path] = strings.Fields(deps)
		name, _, _ := strings.Cut(filepath.Base(path), ".ko")
		paths[strings.ReplaceAll(name, "-", "_")] = path
	}
	var order []string
	var add func(path string)
	add = func(path string) {
		if slices.Contains(order, path) {
			return
		}
		for _, d := range slices.Backward(depends[path]) { // the deepest comes last
			add(d)
		}
		order = append(order, path)
	}
	for _, m := range modules {
		if path, ok := paths[m]; ok { // others are built in
			add(path)
		}
	}
	return order, nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	if !strings.HasSuffix(path, ".xz") {
		return os.ReadFile(path)
	}
	return exec.CommandContext(ctx, "xz", "-dc", path).Output()
}

// buildInit builds qemuinit as a static binary.
func buildInit(ctx context.Context) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "guest-init-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	bin := filepath.Join(tmp, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin,
		"github.com/goiscsi/goiscsi/test/guest/qemuinit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.ReadFile(bin)
}

// An archive is a cpio archive of the kind that the kernel unpacks (newc, see
// the kernel's buffer-format.rst).
type archive struct {
	b     bytes.Buffer
	inode int
}

func (a *archive) dir(name string)                            { a.entry(name, 0o040755, nil) }
func (a *archive) file(name string, mode uint32, data []byte) { a.entry(name, 0o100000|mode, data) }

func (a *archive) entry(name string, mode uint32, data []byte) {
	a.inode++
	// magic, inode, mode, uid, gid, nlink, mtime, size, device and special
	// device (major, minor), length of the name, checksum (unused)
	fmt.Fprintf(&a.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.b.WriteString(name)
	a.b.WriteByte(0)
	a.pad()
	a.b.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

func (a *archive) finish() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.b.Bytes()
}
