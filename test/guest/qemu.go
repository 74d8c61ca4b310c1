package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	qemuProgram = "qemu-system-x86_64"
	// kernelPackage is a meta-package of Debian: it depends on the newest
	// kernel of its series.
	kernelPackage = "linux-image-6.12-amd64"
	// processors of a QEMU guest. With software emulation each is a thread of
	// the host.
	processors = 2
)

// qemu boots Debian's kernel package in QEMU, by software emulation: no
// virtualisation hardware is wanted, so it runs wherever user-mode Linux does.
type qemu struct{}

func (qemu) available() error {
	var missing []string
	for program, pkg := range map[string]string{
		qemuProgram: "qemu-system-x86", "depmod": "kmod", "xz": "xz-utils", "dpkg-deb": "dpkg", "apt-get": "apt",
	} {
		if _, err := exec.LookPath(program); err != nil && !hasAny("/sbin/"+program, "/usr/sbin/"+program) {
			missing = append(missing, pkg)
		}
	}
	if missing != nil {
		return &MissingError{Kind: QEMU, Packages: missing}
	}
	return nil
}

// prepare unpacks the kernel once into the user's cache directory and builds
// the initial RAM disk beside it.
func (qemu) prepare(ctx context.Context, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, ".init"), initScript, 0o755); err != nil {
		return err
	}
	k, err := fetchKernel(ctx)
	if err != nil {
		return fmt.Errorf("kernel for QEMU: %w", err)
	}
	return k.writeInitrd(ctx, filepath.Join(dir, ".initrd"))
}

func (qemu) run(ctx context.Context, dir string, memoryMiB int, out, console io.Writer) error {
	k, err := fetchKernel(ctx)
	if err != nil {
		return err
	}
	consoleFile := filepath.Join(dir, ".console")
	share := func(path, tag, more string) string {
		return fmt.Sprintf("local,path=%s,mount_tag=%s,security_model=none%s", strings.ReplaceAll(path, ",", ",,"), tag, more)
	}
	cmd := exec.CommandContext(ctx, qemuProgram,
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-smp", fmt.Sprint(processors), "-m", fmt.Sprintf("%dM", memoryMiB),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", k.image, "-initrd", filepath.Join(dir, ".initrd"),
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off GUEST_TTY=ttyS1",
		// The first line is the console, the second the job's output.
		"-serial", "file:"+consoleFile, "-serial", "stdio",
		"-virtfs", share("/", "root", ",multidevs=remap,readonly=on"),
		"-virtfs", share(k.modules, "modules", ",readonly=on"),
		"-virtfs", share(dir, "lab", ""))
	cmd.Stdout = out
	var complaints strings.Builder
	cmd.Stderr = &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	if text, rerr := os.ReadFile(consoleFile); rerr == nil {
		_, _ = console.Write(text) // a buffer
	}
	if err != nil && complaints.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return err
}

// A kernel is an unpacked kernel package.
type kernel struct {
	version string
	image   string // compressed kernel
	modules string // what belongs at /lib/modules
}

// fetchKernel returns the cached kernel of kernelPackage, or downloads and
// unpacks it. Nothing is installed.
func fetchKernel(ctx context.Context) (kernel, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/var/cache"
	}
	cache := filepath.Join(base, "goiscsi-guest")
	if k, err := cachedKernel(cache); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	tmp, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(tmp)
	// The newest kernel is what the meta-package depends on.
	deps, err := exec.CommandContext(ctx, "apt-cache", "depends", "--important", kernelPackage).Output()
	if err != nil {
		return kernel{}, fmt.Errorf("apt-cache depends %s: %w", kernelPackage, err)
	}
	name := ""
	for line := range strings.Lines(string(deps)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(dep, "linux-image-") {
			name = dep
		}
	}
	if name == "" {
		return kernel{}, fmt.Errorf("%s: the package lists name no kernel (apt-get update?)", kernelPackage)
	}
	steps := [][]string{
		{"apt-get", "download", "-q", name},
		{"sh", "-c", "dpkg-deb -x linux-image-*.deb . && rm -f linux-image-*.deb && { [ -d lib/modules ] || ln -s usr/lib lib; }"},
		{"sh", "-c", `PATH="$PATH:/usr/sbin:/sbin"; depmod -b . "$(ls lib/modules)"`},
	}
	for _, args := range steps {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			return kernel{}, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	// Renamed when complete: a download that was interrupted is no cache.
	final := filepath.Join(cache, strings.TrimPrefix(name, "linux-image-"))
	if err := os.Rename(tmp, final); err != nil && !errors.Is(err, os.ErrExist) {
		return kernel{}, err
	}
	return cachedKernel(cache)
}

func cachedKernel(cache string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(cache, "[0-9]*", "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return kernel{}, errors.Join(os.ErrNotExist, err)
	}
	image := images[len(images)-1]
	return kernel{
		version: strings.TrimPrefix(filepath.Base(image), "vmlinuz-"),
		image:   image,
		modules: filepath.Join(filepath.Dir(filepath.Dir(image)), "lib", "modules"),
	}, nil
}
