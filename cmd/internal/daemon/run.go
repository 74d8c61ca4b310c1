package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/metrics"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nodedb"
)

// Options say how a daemon runs.
type Options struct {
	// Paths are the places of its files.
	Paths paths.Paths
	// NoPIDFile leaves the pid file alone.
	NoPIDFile bool
	// Logger gets what an administrator should know. nil discards it.
	Logger *slog.Logger
	// Level is what changes how much Logger logs; nil if nothing does.
	Level *slog.LevelVar
	// Ready is called once when the control socket answers. It may be nil.
	Ready func()
	// UID and GID, if not negative, are what the process changes to when it
	// has opened its sockets. Without CAP_SYS_ADMIN it can attach no kernel
	// device, so they go with node.session.attach = socket.
	UID, GID int

	// processors, if not nil, is told of work that is no I/O.
	processors *processorKeeper

	// Tests replace these.
	kernel  kernel // nil: the kernel's own
	uevents func() (ueventSource, error)
	dial    dialFunc
	retry   time.Duration
}

// restoreRetry is the time between two logins of a session that is to be
// taken up again; open-iscsi waits as long between the reopens of one.
const restoreRetry = 3 * time.Second

// poolIdle is how many bytes of unused payload buffers are kept for the next
// burst: enough for the depth of a disk under load, little enough for an idle
// daemon to stay under 30 MiB.
const poolIdle = 8 << 20

// stopTime bounds a stop, so that neither a target nor a disk can hold it up.
const stopTime = 20 * time.Second

// Run holds sessions until ctx ends, then parks them for the next daemon. One
// daemon at a time can use a run directory.
func Run(ctx context.Context, o Options) error {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	conf, err := nodedb.LoadConfig(o.Paths.Config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for _, w := range conf.Warnings {
		log.Warn(w)
	}
	gid, err := controlGroup(conf)
	if err != nil {
		log.Warn("nobody but root may control the daemon", "err", err)
	}
	if err := makeRunDir(o.Paths.Run); err != nil {
		return err
	}
	lock, err := lockPath(filepath.Join(o.Paths.Run, "lock"))
	if err != nil {
		return fmt.Errorf("another iscsid runs: %w", err)
	}
	defer lock.unlock(false)
	if !o.NoPIDFile {
		pid, err := lockPath(o.Paths.PIDFile)
		if err != nil {
			return fmt.Errorf("pid file: %w", err)
		}
		defer pid.unlock(true)
		if err := pid.writePID(os.Getpid()); err != nil {
			return fmt.Errorf("pid file: %w", err)
		}
	}
	passed := activation.Files(true)
	l, err := listen(o.Paths.ControlSocket(), passed)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer l.Close()

	d, err := newDaemon(o, conf, newSystemdStore(passed, log), log)
	if err != nil {
		return err
	}
	defer d.close()
	scrapes, err := listenMetrics(conf)
	if err != nil {
		// Disks are more important than their counters.
		log.Error("Prometheus is answered on the control socket only", "err", err)
	} else if scrapes != nil {
		defer scrapes.Close()
		log.Info("Prometheus is answered", "address", scrapes.Addr())
	}
	if err := dropPrivileges(o.UID, o.GID); err != nil {
		return err
	}
	return d.run(ctx, l, scrapes, gid, o.Ready)
}

// A daemon is one run of iscsid.
type daemon struct {
	log     *slog.Logger
	svc     *service
	m       *machine
	kernel  *kernelAttacher
	states  []*sessionState // of the last daemon
	uevents ueventSource
	memory  *memoryKeeper
	// processors is nil where their number is left alone.
	processors *processorKeeper
	wg         sync.WaitGroup // the uevent listener, and what run starts
	stop       context.CancelFunc
	stopped    context.Context // ends when a stop is asked for
}

func newDaemon(o Options, conf *nodedb.Config, fds fdStore, log *slog.Logger) (*daemon, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	st, err := openStore(o.Paths.StateDir(), boot, newInstance(), firstHost(o.Paths.Sys), log)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Paths.LUNDir(), 0o700); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	states, err := st.load()
	if err != nil {
		return nil, err
	}
	udev, err := openUdevStore(o.Paths.UdevDir(), states, log)
	if err != nil {
		return nil, err
	}
	udevRuns := func() bool {
		_, err := os.Stat(o.Paths.UdevControl)
		return err == nil
	}
	links := newLinkKeeper(o.Paths.Dev, o.Paths.Sys, udevRuns, log)
	d := &daemon{log: log, states: states, processors: o.processors}
	d.stopped, d.stop = context.WithCancel(context.Background())
	pool := nbd.NewBufferPool(poolIdle)
	d.kernel = newKernelAttacher(o.kernel, o.Paths.Dev, o.Paths.Sys, fds, pool, log)
	sockets := newSocketAttacher(o.Paths.LUNDir(), fds, pool, log)
	if err := sockets.clean(states); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	d.m = &machine{
		log: log, dial: o.dial, reg: newRegistry(st), store: st, links: links, udev: udev, byPath: o.Paths.ByPath(), lunDir: o.Paths.LUNDir(),
		instance: st.instance, retry: o.retry,
		choose: func(k attachKind) (attachKind, attacher, error) { return chooseAttacher(k, d.kernel, sockets) },
	}
	d.memory = &memoryKeeper{proc: "/proc/self", pool: pool, log: log, sessions: func() int { return len(d.m.reg.all()) }}
	d.memory.look()
	if d.m.dial == nil {
		d.m.dial = dialTarget(o.processors)
	}
	if d.m.retry == 0 {
		d.m.retry = restoreRetry
	}
	safe, _ := conf.Lookup(nodedb.ConfSafeLogout)
	d.svc = &service{
		m: d.m, log: log, safe: safe == "Yes", shutdown: d.stop, level: o.Level, kernel: d.kernel.available,
		identity: func() (identity, error) {
			in, err := nodedb.LoadInitiatorName(o.Paths.InitiatorName)
			return identity{name: in.Name, alias: in.Alias}, err
		},
	}
	if _, err := d.svc.identity(); err != nil {
		log.Warn("Warning: InitiatorName file "+o.Paths.InitiatorName+
			" does not exist or does not contain a properly formatted InitiatorName", "err", err)
	}
	open := o.uevents
	if open == nil {
		open = func() (ueventSource, error) { return listenUevents() }
	}
	if d.uevents, err = open(); err != nil {
		log.Warn("links of partitions are not followed", "err", err)
		d.uevents = nil
	} else {
		d.wg.Go(func() { links.run(d.stopped, d.uevents) })
	}
	return d, nil
}

// run takes up the sessions on file, serves, and parks all sessions.
// scrapes is where Prometheus is answered besides the control socket, if not nil.
func (d *daemon) run(ctx context.Context, l, scrapes net.Listener, gid int, ready func()) error {
	stopWith := context.AfterFunc(ctx, d.stop)
	defer stopWith()
	// I/O waits for these logins. Before a device is made that states does not
	// know, the orphans have to be found.
	surveyed := make(chan struct{})
	d.svc.restore(d.states, surveyed)
	orphans := d.orphans(d.states)
	close(surveyed)
	d.wg.Go(func() { d.removeOrphans(orphans) })

	exporter := metrics.Handler(d.svc, d.log)
	srv := control.NewServer(d.svc, control.Options{Group: gid, Metrics: exporter, Logger: d.log, Begin: d.processors.spare})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(d.stopped, l) }() // ends with stopped, waited for below
	d.log.Info("iscsid is ready", "pid", os.Getpid(), "sessions", len(d.states))
	if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
		d.log.Warn("readiness is not reported to systemd", "err", err)
	}
	d.wg.Go(func() { d.watchdog(d.stopped) })
	if scrapes != nil {
		scraped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.processors.spare()
			exporter.ServeHTTP(w, r)
		})
		d.wg.Go(func() { serveMetrics(d.stopped, scrapes, scraped, d.log) })
	}
	d.wg.Go(func() { d.memory.run(d.stopped) })
	d.wg.Go(func() { d.processors.run(d.stopped) })
	if ready != nil {
		ready()
	}
	<-d.stopped.Done()
	_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
	d.log.Info("iscsid stops; devices stay for the next one")
	bound, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	d.m.reg.stop(bound)
	err := <-served
	if bound.Err() == nil {
		d.svc.wg.Wait()
	}
	return err
}

// watchdog tells systemd, if it wants to know, that the daemon is alive: that
// the registry, which every request needs, answers.
func (d *daemon) watchdog(ctx context.Context) {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.m.reg.all()
			_, _ = sd.SdNotify(false, sd.SdNotifyWatchdog) // systemd's silence is its own affair
		case <-ctx.Done():
			return
		}
	}
}

// close ends what newDaemon started.
func (d *daemon) close() {
	d.stop()
	if d.uevents != nil {
		d.uevents.Close()
	}
	d.wg.Wait()
	d.kernel.close()
}

// orphans returns the kernel devices, by number, that bear our mark and that no
// session on file knows: a daemon died between making and offering them.
func (d *daemon) orphans(states []*sessionState) map[int]string {
	left := d.kernel.ours(d.m.instance)
	for _, st := range states {
		for _, u := range st.Units {
			if left[u.Index] == u.Backend || u.Index < 0 {
				maps.DeleteFunc(left, func(_ int, id string) bool { return id == u.Backend })
			}
		}
	}
	return left
}

// removeOrphans disconnects kernel devices that nobody can have used.
func (d *daemon) removeOrphans(orphans map[int]string) {
	for index, id := range orphans {
		d.log.Warn("kernel device without a session is removed", "device", "nbd"+strconv.Itoa(index), "backend", id)
		if err := d.kernel.remove(d.stopped, index, id); err != nil {
			d.log.Warn("kernel device stays", "index", index, "err", err)
		}
	}
}

// newInstance returns the mark of a new run directory's devices.
func newInstance() string { return randomMark(6) }

// randomMark returns n random bytes in hexadecimal.
func randomMark(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never fails (crypto/rand.Read)
	return hex.EncodeToString(b)
}

// firstHost returns the host number that the kernel would give the next SCSI
// host, so that ours are not those of real ones.
func firstHost(sys string) int {
	next := 0
	hosts, _ := filepath.Glob(filepath.Join(sys, "class/scsi_host/host*"))
	for _, h := range hosts {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(h), "host")); err == nil {
			next = max(next, n+1)
		}
	}
	return next
}

// nodeLive reports whether a by-path link to the node is of use to anyone: the
// node is there and, if it is an nbd device, connected.
func nodeLive(sys, node string) bool {
	if _, err := os.Stat(node); err != nil {
		return false
	}
	disk := filepath.Base(node)
	if !strings.HasPrefix(disk, "nbd") {
		return true
	}
	disk, _, _ = strings.Cut(disk, "p")
	_, err := os.Stat(filepath.Join(sys, "block", disk, "pid"))
	return err == nil
}

// controlGroup returns the group that may use the control socket, 0 for none.
func controlGroup(conf *nodedb.Config) (int, error) {
	name, ok := conf.Lookup(nodedb.ConfControlGroup)
	if !ok || name == "" {
		return 0, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// makeRunDir makes the run directory. Everybody may open what is in it by name,
// which is the control socket alone, and nobody else may list it.
func makeRunDir(dir string) error {
	const mode = 0o711
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	// An older release or the umask may have made it narrower.
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	return nil
}

// listen returns the control socket: the one that systemd listens on for us,
// or a new one. Everybody can open it: who may do what is the server's to decide, by
// the peer's credentials.
func listen(path string, passed []*os.File) (net.Listener, error) {
	for _, f := range passed {
		if strings.HasPrefix(f.Name(), fdPrefix) {
			continue // a device's, see systemdStore
		}
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("passed by the service manager: %w", err)
		}
		return l, nil
	}
	// The run directory is locked, so a socket there is a dead daemon's.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	err = os.Chmod(path, 0o666)
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
