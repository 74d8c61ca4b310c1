package compatsysfs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Options say what is mounted where.
type Options struct {
	// Dir is the directory to mount on. It must exist.
	Dir string
	// Sys is the real sysfs, /sys.
	Sys string
	// Daemon is iscsid. It need not be running.
	Daemon Daemon
	// Logger gets what an administrator should know. nil discards it.
	Logger *slog.Logger
	// Ready is called once when Dir shows the view. It may be nil.
	Ready func()
}

// leaveTime is how long the end waits for those who use the file system by
// another mount.
const leaveTime = 2 * time.Second

// Run shows the view on o.Dir until ctx ends or somebody unmounts it. It
// needs CAP_SYS_ADMIN and /dev/fuse.
func Run(ctx context.Context, o Options) error {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	real, err := os.OpenRoot(o.Sys)
	if err != nil {
		return fmt.Errorf("real sysfs: %w", err)
	}
	defer real.Close()
	root := &inode{v: &view{src: newSource(o.Daemon, log), real: real}, path: "."}
	var never time.Duration // the kernel keeps nothing: iscsid's sessions change without its knowing
	server, err := fs.Mount(o.Dir, root, &fs.Options{
		EntryTimeout: &never, AttrTimeout: &never, NegativeTimeout: &never, NullPermissions: true,
		RootStableAttr: &fs.StableAttr{Ino: number(".", unix.S_IFDIR)},
		MountOptions: fuse.MountOptions{
			AllowOther: true, Options: []string{"default_permissions"},
			FsName: "iscsid", Name: "iscsid-sysfs", DirectMountStrict: true, DisableXAttrs: true,
			DirectMountFlags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC,
		},
	})
	if err != nil {
		return fmt.Errorf("mount on %s: %w", o.Dir, err)
	}
	// Serving ends when the last mount is gone, or with the process.
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Wait()
	}()
	log.Info("the view of sysfs is mounted", "dir", o.Dir, "real", o.Sys)
	if o.Ready != nil {
		o.Ready()
	}
	select {
	case <-done:
		log.Info("the view of sysfs was unmounted", "dir", o.Dir)
		return nil
	case <-ctx.Done():
	}
	// Not server.Unmount, which waits for every mount without a bound.
	if err := unix.Unmount(o.Dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", o.Dir, err)
	}
	bound := time.NewTimer(leaveTime)
	defer bound.Stop()
	select {
	case <-done:
	case <-bound.C:
		log.Warn("the view of sysfs is mounted elsewhere, too, and ends there with this process", "dir", o.Dir)
	}
	return nil
}
