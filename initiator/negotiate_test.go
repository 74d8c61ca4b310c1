package initiator

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/pdu"
)

// offered returns a negotiation that has made its offers.
func offered(t *testing.T, p Params, discovery bool) *negotiation {
	t.Helper()
	p, err := p.withDefaults(discardLogger)
	if err != nil {
		t.Fatal(err)
	}
	n := newNegotiation(p, discovery)
	n.offers()
	return n
}

func text(pairs ...string) []pdu.KeyValue {
	var kvs []pdu.KeyValue
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		kvs = append(kvs, pdu.KeyValue{Key: k, Value: v})
	}
	return kvs
}

// The order is open-iscsi's: some targets are known to depend on it.
func TestOffersInOrder(t *testing.T) {
	var got []string
	p, err := Params{}.withDefaults(discardLogger)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range newNegotiation(p, false).offers() {
		got = append(got, kv.Key+"="+kv.Value)
	}
	want := []string{
		"HeaderDigest=None", "DataDigest=None", "DefaultTime2Wait=2", "DefaultTime2Retain=0", "IFMarker=No", "OFMarker=No",
		"ErrorRecoveryLevel=0", "InitialR2T=No", "ImmediateData=Yes", "MaxBurstLength=16776192", "FirstBurstLength=262144",
		"MaxOutstandingR2T=1", "MaxConnections=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "MaxRecvDataSegmentLength=262144",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = got[:0]
	for _, kv := range newNegotiation(p, true).offers() {
		got = append(got, kv.Key)
	}
	if slices.Contains(got, pdu.KeyMaxBurstLength) || !slices.Contains(got, pdu.KeyMaxRecvDataSegmentLength) {
		t.Errorf("discovery session offers %v", got)
	}
}

func TestNegotiatedValues(t *testing.T) {
	crc := []Digest{DigestCRC32C}
	both := []Digest{DigestCRC32C, DigestNone}
	for _, tc := range []struct {
		name  string
		offer Params
		says  []string
		check func(Params) bool
	}{
		{
			"digest picked",
			Params{HeaderDigest: both, DataDigest: both},
			[]string{"HeaderDigest=CRC32C", "DataDigest=None"},
			func(p Params) bool { return uses(p.HeaderDigest) && !uses(p.DataDigest) },
		},
		{
			"digest not understood is none",
			Params{HeaderDigest: both},
			[]string{"HeaderDigest=NotUnderstood"},
			func(p Params) bool { return !uses(p.HeaderDigest) },
		},
		{
			"digest not answered is none",
			Params{DataDigest: crc},
			nil,
			func(p Params) bool { return !uses(p.DataDigest) },
		},
		{"InitialR2T is or: no no", Params{}, []string{"InitialR2T=No"}, func(p Params) bool { return !p.InitialR2T }},
		{"InitialR2T is or: no yes", Params{}, []string{"InitialR2T=Yes"}, func(p Params) bool { return p.InitialR2T }},
		{"InitialR2T is or: yes no", Params{InitialR2T: true}, []string{"InitialR2T=No"}, func(p Params) bool { return p.InitialR2T }},
		{"InitialR2T defaults to yes", Params{}, nil, func(p Params) bool { return p.InitialR2T }},
		{"ImmediateData is and: yes yes", Params{}, []string{"ImmediateData=Yes"}, func(p Params) bool { return !p.NoImmediateData }},
		{"ImmediateData is and: yes no", Params{}, []string{"ImmediateData=No"}, func(p Params) bool { return p.NoImmediateData }},
		{"ImmediateData is and: no yes", Params{NoImmediateData: true}, []string{"ImmediateData=Yes"}, func(p Params) bool { return p.NoImmediateData }},
		{"ImmediateData unanswered, refused by us", Params{NoImmediateData: true}, nil, func(p Params) bool { return p.NoImmediateData }},
		{"lower burst", Params{MaxBurstLength: 65536}, []string{"MaxBurstLength=32768"}, func(p Params) bool { return p.MaxBurstLength == 32768 }},
		{"burst above our offer is ours", Params{MaxBurstLength: 65536}, []string{"MaxBurstLength=262144"}, func(p Params) bool { return p.MaxBurstLength == 65536 }},
		{"unanswered burst is the default", Params{}, nil, func(p Params) bool { return p.MaxBurstLength == 262144 && p.FirstBurstLength == 65536 }},
		{
			"unanswered burst is not above our offer",
			Params{MaxBurstLength: 8192, FirstBurstLength: 4096},
			nil,
			func(p Params) bool { return p.MaxBurstLength == 8192 && p.FirstBurstLength == 4096 },
		},
		{
			"first burst is at most burst",
			Params{},
			[]string{"MaxBurstLength=4096", "FirstBurstLength=65536"},
			func(p Params) bool { return p.FirstBurstLength == 4096 },
		},
		{
			"first burst above burst in the offer",
			Params{MaxBurstLength: 4096, FirstBurstLength: 262144},
			[]string{"MaxBurstLength=4096"},
			func(p Params) bool { return p.FirstBurstLength == 4096 && p.MaxBurstLength == 4096 },
		},
		{"hexadecimal number", Params{}, []string{"MaxBurstLength=0x1000"}, func(p Params) bool { return p.MaxBurstLength == 4096 }},
		{"Time2Wait is the larger", Params{}, []string{"DefaultTime2Wait=7"}, func(p Params) bool { return p.DefaultTime2Wait == 7*time.Second }},
		{
			"Time2Wait is the larger, ours",
			Params{DefaultTime2Wait: 5 * time.Second},
			[]string{"DefaultTime2Wait=0"},
			func(p Params) bool { return p.DefaultTime2Wait == 5*time.Second },
		},
		{
			"Time2Wait of zero",
			Params{DefaultTime2Wait: Immediately},
			[]string{"DefaultTime2Wait=0"},
			func(p Params) bool { return p.DefaultTime2Wait == 0 },
		},
		{
			"Time2Retain is the smaller",
			Params{DefaultTime2Retain: 30 * time.Second},
			[]string{"DefaultTime2Retain=20"},
			func(p Params) bool { return p.DefaultTime2Retain == 20*time.Second },
		},
		{"R2Ts are the fewer", Params{MaxOutstandingR2T: 8}, []string{"MaxOutstandingR2T=4"}, func(p Params) bool { return p.MaxOutstandingR2T == 4 }},
		{
			"order is or: both no",
			Params{UnorderedPDUs: true, UnorderedSequences: true},
			[]string{"DataPDUInOrder=No", "DataSequenceInOrder=No"},
			func(p Params) bool { return p.UnorderedPDUs && p.UnorderedSequences },
		},
		{"order is or: target yes", Params{UnorderedPDUs: true}, []string{"DataPDUInOrder=Yes"}, func(p Params) bool { return !p.UnorderedPDUs }},
		{"order is or: target no to our yes", Params{}, []string{"DataPDUInOrder=No"}, func(p Params) bool { return !p.UnorderedPDUs }},
		{"segment declared", Params{}, []string{"MaxRecvDataSegmentLength=4096"}, func(p Params) bool { return p.MaxXmitDataSegmentLength == 4096 }},
		{"segment undeclared", Params{}, nil, func(p Params) bool { return p.MaxXmitDataSegmentLength == 8192 }},
		{
			"segment limited by us",
			Params{MaxXmitDataSegmentLength: 4096},
			[]string{"MaxRecvDataSegmentLength=65536"},
			func(p Params) bool { return p.MaxXmitDataSegmentLength == 4096 },
		},
		{
			"our segment is what we declared",
			Params{MaxRecvDataSegmentLength: 65536},
			[]string{"MaxRecvDataSegmentLength=512"},
			func(p Params) bool { return p.MaxRecvDataSegmentLength == 65536 },
		},
		{"markers not understood", Params{}, []string{"IFMarker=NotUnderstood", "OFMarker=Reject"}, func(Params) bool { return true }},
		{"one connection, level 0", Params{}, []string{"MaxConnections=1", "ErrorRecoveryLevel=0"}, func(Params) bool { return true }},
		{"irrelevant", Params{}, []string{"MaxBurstLength=Irrelevant"}, func(p Params) bool { return p.MaxBurstLength == 262144 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := offered(t, tc.offer, false)
			reply, err := n.receive(text(tc.says...))
			if err != nil || len(reply) > 0 {
				t.Fatalf("receive: %v, %v", reply, err)
			}
			if p := n.finish(); !tc.check(p) {
				t.Errorf("negotiated %+v", p)
			}
		})
	}
}

func TestNegotiationRefuses(t *testing.T) {
	for _, says := range [][]string{
		{"HeaderDigest=CRC32C"}, // not offered
		{"HeaderDigest=MD5"},
		{"DataDigest="},
		{"InitialR2T=yes"},
		{"InitialR2T=1"},
		{"ImmediateData=Maybe"},
		{"MaxBurstLength=511"},
		{"MaxBurstLength=16777216"},
		{"MaxBurstLength=-1"},
		{"MaxBurstLength=many"},
		{"FirstBurstLength=0"},
		{"MaxOutstandingR2T=0"},
		{"MaxOutstandingR2T=65536"},
		{"DefaultTime2Wait=3601"},
		{"MaxConnections=2"},
		{"ErrorRecoveryLevel=1"},
		{"IFMarker=Yes"},
		{"MaxRecvDataSegmentLength=511"},
		{"MaxRecvDataSegmentLength=16777216"},
		{"TargetPortalGroupTag=65536"},
		{"TargetPortalGroupTag=x"},
		{"InitialR2T=No", "InitialR2T=No"}, // twice
		{"InitiatorName=iqn.2001-04.com.example:x"},
		{"SessionType=Normal"},
	} {
		t.Run(strings.Join(says, " "), func(t *testing.T) {
			_, err := offered(t, Params{}, false).receive(text(says...))
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("error %v, want ErrProtocol", err)
			}
		})
	}
}

func TestNegotiateOnceOverSeveralPDUs(t *testing.T) {
	n := offered(t, Params{}, false)
	if _, err := n.receive(text("ImmediateData=Yes")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.receive(text("ImmediateData=Yes")); !errors.Is(err, ErrProtocol) {
		t.Errorf("error %v, want ErrProtocol", err)
	}
}

// Whoever offers CRC32C alone gets it or no session, and is told what to do.
func TestDigestsThatTheTargetDoesNotHave(t *testing.T) {
	for name, tc := range map[string]struct {
		says     []string
		want     string
		protocol bool // the target broke a rule
	}{
		"none, not offered": {
			[]string{"HeaderDigest=None", "DataDigest=CRC32C"},
			`HeaderDigest: we offered "CRC32C", the target answered "None", which was not offered; offer "None" as well, or change what the target allows`, true,
		},
		"rejected": {
			[]string{"HeaderDigest=CRC32C", "DataDigest=Reject"},
			`DataDigest: we offered "CRC32C", the target answered "Reject", which means None; offer "None" as well, or change what the target allows`, false,
		},
		"no answer": {
			[]string{"HeaderDigest=CRC32C"},
			`DataDigest: we offered "CRC32C", the target did not answer, which means None; offer "None" as well, or change what the target allows`, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := offered(t, Params{HeaderDigest: []Digest{DigestCRC32C}, DataDigest: []Digest{DigestCRC32C}}, false)
			_, err := n.receive(text(tc.says...))
			if err == nil {
				err = n.checkDigests()
			}
			if err == nil || err.Error() != tc.want || errors.Is(err, ErrProtocol) != tc.protocol || retryable(err) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
	n := offered(t, Params{HeaderDigest: []Digest{DigestCRC32C, DigestNone}, DataDigest: []Digest{DigestNone}}, false)
	if _, err := n.receive(text("HeaderDigest=Reject")); err != nil || n.checkDigests() != nil {
		t.Errorf("with None among the offers: %v, %v", err, n.checkDigests())
	}
}

func TestNegotiationAnswersTheTarget(t *testing.T) {
	for name, tc := range map[string]struct {
		discovery bool
		says      []string
		want      []string
	}{
		"unknown key":                 {false, []string{"X-com.example.key=5", "iSCSIProtocolLevel=2"}, []string{"X-com.example.key=NotUnderstood", "iSCSIProtocolLevel=NotUnderstood"}},
		"marker intervals":            {false, []string{"IFMarkInt=2048", "OFMarkInt=1~2"}, []string{"IFMarkInt=Reject", "OFMarkInt=Reject"}},
		"task reporting":              {false, []string{"TaskReporting=FastAbort,ResponseFence,RFC3720"}, []string{"TaskReporting=RFC3720"}},
		"task reporting of no use":    {false, []string{"TaskReporting=FastAbort"}, []string{"TaskReporting=Reject"}},
		"task reporting in discovery": {true, []string{"TaskReporting=RFC3720"}, []string{"TaskReporting=Irrelevant"}},
		"node architecture":           {false, []string{"X#NodeArchitecture=ExampleOS/1"}, nil},
		"refusal is not answered":     {false, []string{"X-com.example.key=NotUnderstood"}, nil},
		"key of no use for discovery": {true, []string{"MaxBurstLength=65536"}, []string{"MaxBurstLength=Irrelevant"}},
		"declarations":                {false, []string{"TargetAlias=disk", "TargetPortalGroupTag=3", "TargetAddress=192.0.2.1:3260,3"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := offered(t, Params{}, tc.discovery).receive(text(tc.says...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text(tc.want...), reply); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParamsOutOfRangeAreCorrected(t *testing.T) {
	p, err := Params{FirstBurstLength: 100, MaxBurstLength: 1 << 24, MaxRecvDataSegmentLength: 4099, MaxOutstandingR2T: -1, DefaultTime2Wait: -time.Second}.withDefaults(discardLogger)
	if err != nil {
		t.Fatal(err)
	}
	if p.FirstBurstLength != 262144 || p.MaxBurstLength != 16776192 || p.MaxRecvDataSegmentLength != 4096 || p.MaxOutstandingR2T != 1 || p.DefaultTime2Wait != 0 {
		t.Errorf("%+v", p)
	}
	if _, err := (Params{HeaderDigest: []Digest{DigestNone, DigestNone}}).withDefaults(discardLogger); err == nil {
		t.Error("a digest given twice is accepted")
	}
}

func TestAliasIsMadePrintable(t *testing.T) {
	n := offered(t, Params{}, false)
	if _, err := n.receive(text("TargetAlias=a\x1b[2J\xff\x9b" + strings.Repeat("ä", 300))); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(n.targetAlias, "\x1b") || !utf8.ValidString(n.targetAlias) || len(n.targetAlias) > 255 {
		t.Errorf("alias %q", n.targetAlias)
	}
}
