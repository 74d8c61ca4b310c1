package guest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLoadOrder(t *testing.T) {
	k := kernel{version: "6.12", modules: t.TempDir()}
	dir := filepath.Join(k.modules, k.version)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const dep = `kernel/net/9p/9pnet.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/virtio/virtio_ring.ko.xz:
kernel/fs/9p/9p.ko.xz: kernel/fs/netfs/netfs.ko.xz kernel/net/9p/9pnet.ko.xz
kernel/fs/netfs/netfs.ko.xz:
`
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	order, err := k.loadOrder([]string{"9pnet_virtio", "9p", "overlay"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range order {
		got = append(got, filepath.Base(m))
	}
	want := []string{"virtio.ko.xz", "virtio_ring.ko.xz", "9pnet.ko.xz", "9pnet_virtio.ko.xz", "netfs.ko.xz", "9p.ko.xz"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestArchive compares with the layout that the kernel's documentation gives.
func TestArchive(t *testing.T) {
	var a archive
	a.file("init", 0o755, []byte("abc"))
	got := a.finish()
	const head = "070701" + "00000001" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000003" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" + "init\x00\x00" + "abc\x00"
	if string(got[:len(head)]) != head {
		t.Errorf("the archive begins with %q, want %q", got[:len(head)], head)
	}
	if len(got)%4 != 0 {
		t.Errorf("the archive has %d bytes", len(got))
	}
}
