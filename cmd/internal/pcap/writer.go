package pcap

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/version"
)

// maxSegment is how many bytes of a PDU go into one packet at most: as many as
// the length field of IP has room for.
const maxSegment = 65535 - 20 - 20

// The window of both ends, with the greatest scale there is: Wireshark compares
// it with what is in flight.
const (
	window      = 65535
	windowScale = 14
)

// A Writer writes one capture. It is for one goroutine.
type Writer struct {
	w     *pcapgo.NgWriter
	start time.Time
	buf   gopacket.SerializeBuffer

	conn    uint64 // that the fields below are of; 0 none yet
	ends    [2]end // ours, the target's
	packets uint64
	last    time.Time
}

// An end is one end of the connection at hand.
type end struct {
	at  netip.AddrPort
	seq uint32
}

// NewWriter writes the head of a capture to w. name says what it is of.
func NewWriter(w io.Writer, name string, now time.Time) (*Writer, error) {
	ng, err := pcapgo.NewNgWriterInterface(bufio.NewWriterSize(w, 64<<10), pcapgo.NgInterface{
		Name:                name,
		Comment:             "PDUs of one iSCSI session; IP and TCP headers are made up, digests left out, CHAP_R masked",
		OS:                  runtime.GOOS,
		LinkType:            layers.LinkTypeRaw,
		TimestampResolution: 9,
	}, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "iscsid " + version.Version,
	}})
	if err != nil {
		return nil, err
	}
	return &Writer{w: ng, start: now, last: now, buf: gopacket.NewSerializeBuffer()}, nil
}

// Write writes a PDU.
func (w *Writer) Write(p *initiator.TracedPDU) error {
	if p.Conn != w.conn {
		if err := w.connect(p); err != nil {
			return err
		}
	}
	from := 0
	if !p.Sent {
		from = 1
	}
	data := p.Bytes
	for {
		n := min(len(data), maxSegment)
		last := n == len(data)
		if err := w.packet(p.Time, from, data[:n], func(t *layers.TCP) { t.ACK, t.PSH = true, last }); err != nil {
			return err
		}
		if data = data[n:]; last {
			return nil
		}
	}
}

// connect writes the handshake of a connection. It is the first PDU's time that
// it bears: Wireshark needs to see it, not when it was.
func (w *Writer) connect(p *initiator.TracedPDU) error {
	w.conn = p.Conn
	w.ends = [2]end{{at: addrOf(p.Local, 1)}, {at: addrOf(p.Remote, 2)}}
	if w.ends[0].at.Addr().Is4() != w.ends[1].at.Addr().Is4() {
		w.ends = [2]end{{at: addrOf(nil, 1)}, {at: addrOf(nil, 2)}}
	}
	scale := []layers.TCPOption{{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{windowScale}}}
	for _, step := range []struct {
		from int
		set  func(*layers.TCP)
	}{
		{0, func(t *layers.TCP) { t.SYN, t.Options = true, scale }},
		{1, func(t *layers.TCP) { t.SYN, t.ACK, t.Options = true, true, scale }},
		{0, func(t *layers.TCP) { t.ACK = true }},
	} {
		if err := w.packet(p.Time, step.from, nil, step.set); err != nil {
			return err
		}
	}
	return nil
}

// addrOf returns the address and port of an end that is one of TCP, and made up
// ones for others.
func addrOf(a net.Addr, n byte) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		if ap := tcp.AddrPort(); ap.Addr().IsValid() {
			return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
		}
	}
	port := uint16(initiator.DefaultPort)
	if n == 1 {
		port = 49152
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), port)
}

// packet writes one packet of an end.
func (w *Writer) packet(at time.Time, from int, data []byte, set func(*layers.TCP)) error {
	src, dst := &w.ends[from], &w.ends[1-from]
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(src.at.Port()), DstPort: layers.TCPPort(dst.at.Port()),
		Seq: src.seq, Ack: dst.seq, Window: window,
	}
	if set(tcp); !tcp.ACK {
		tcp.Ack = 0
	}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	if src.at.Addr().Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP, SrcIP: src.at.Addr().AsSlice(), DstIP: dst.at.Addr().AsSlice()}
		ip, network = v4, v4
	} else {
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: src.at.Addr().AsSlice(), DstIP: dst.at.Addr().AsSlice()}
		ip, network = v6, v6
	}
	if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
		return err
	}
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(w.buf, o, ip, tcp, gopacket.Payload(data)); err != nil {
		return err
	}
	b := w.buf.Bytes()
	if err := w.w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(b), Length: len(b)}, b); err != nil {
		return err
	}
	src.seq += uint32(len(data))
	if tcp.SYN {
		src.seq++
	}
	w.packets++
	w.last = at
	return nil
}

// Flush passes on what has been written so far.
func (w *Writer) Flush() error { return w.w.Flush() }

// Close writes how many PDUs were dropped before they could be written, and
// passes everything on.
func (w *Writer) Close(dropped uint64) error {
	if err := w.w.WriteInterfaceStats(0, pcapgo.NgInterfaceStatistics{
		LastUpdate: w.last, StartTime: w.start, EndTime: w.last,
		PacketsReceived: w.packets + dropped, PacketsDropped: dropped,
	}); err != nil {
		return err
	}
	return w.w.Flush()
}
