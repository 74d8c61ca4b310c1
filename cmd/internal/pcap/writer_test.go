package pcap_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/goiscsi/goiscsi/cmd/internal/pcap"
	"github.com/goiscsi/goiscsi/initiator"
)

// packets reads a capture back.
func packets(t *testing.T, file []byte) (list []gopacket.Packet, r *pcapgo.NgReader) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, err := r.ReadPacketData()
		if err == io.EOF {
			return list, r
		}
		if err != nil {
			t.Fatal(err)
		}
		first := gopacket.Decoder(layers.LayerTypeIPv4)
		if data[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
		p := gopacket.NewPacket(data, first, gopacket.Default)
		if e := p.ErrorLayer(); e != nil {
			t.Fatalf("packet %d: %v", len(list)+1, e.Error())
		}
		p.Metadata().CaptureInfo = ci
		list = append(list, p)
	}
}

func TestConversation(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 123456789, time.UTC)
	for _, tt := range []struct {
		name          string
		local, remote net.Addr
	}{
		{"IPv4", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 40000}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 3260}},
		{"IPv6", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 40000}, &net.TCPAddr{IP: net.ParseIP("fe80::2"), Port: 3260}},
		{"no TCP", &net.UnixAddr{Name: "a"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var file bytes.Buffer
			w, err := pcap.NewWriter(&file, "session 1", now)
			if err != nil {
				t.Fatal(err)
			}
			small, big := bytes.Repeat([]byte{1}, 48), bytes.Repeat([]byte{2}, 200_000)
			for i, p := range []initiator.TracedPDU{
				{Sent: true, Conn: 1, Bytes: small},
				{Conn: 1, Bytes: big},
				{Sent: true, Conn: 1, Bytes: small},
				{Sent: true, Conn: 2, Bytes: small},
			} {
				p.Local, p.Remote, p.Time = tt.local, tt.remote, now.Add(time.Duration(i)*time.Microsecond)
				if err := w.Write(&p); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(5); err != nil {
				t.Fatal(err)
			}
			list, r := packets(t, file.Bytes())
			if len(list) != 3+1+4+1+3+1 {
				t.Fatalf("%d packets", len(list))
			}
			if !list[3].Metadata().Timestamp.Equal(now) || !list[8].Metadata().Timestamp.Equal(now.Add(2*time.Microsecond)) {
				t.Errorf("times %v and %v", list[3].Metadata().Timestamp, list[8].Metadata().Timestamp)
			}
			st, err := r.Interface(0)
			if err != nil || st.Statistics.PacketsDropped != 5 || st.LinkType != layers.LinkTypeRaw {
				t.Errorf("%+v, %v", st, err)
			}
			// Each end's numbers follow one another, and acknowledge the other's.
			next := map[layers.TCPPort]uint32{}
			var got []byte
			for i, p := range list {
				tcp := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
				if i == 9 {
					clear(next) // another connection
				}
				if tcp.Seq != next[tcp.SrcPort] || tcp.ACK && tcp.Ack != next[tcp.DstPort] {
					t.Errorf("packet %d: seq %d ack %d, want %d and %d", i, tcp.Seq, tcp.Ack, next[tcp.SrcPort], next[tcp.DstPort])
				}
				next[tcp.SrcPort] += uint32(len(tcp.Payload))
				if tcp.SYN {
					next[tcp.SrcPort]++
				}
				if i >= 4 && i < 8 {
					got = append(got, tcp.Payload...)
				}
			}
			if !bytes.Equal(got, big) {
				t.Error("the segments of a long PDU are not it")
			}
		})
	}
}
