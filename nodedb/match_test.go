package nodedb_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

// names is a resolver that knows a few hosts and notes what it is asked.
type names struct {
	hosts map[string]string
	asked []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.asked = append(n.asked, host)
	if a, ok := n.hosts[host]; ok {
		return []netip.Addr{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr(a)}, nil
	}
	return nil, errors.New("no such host")
}

func TestMatches(t *testing.T) {
	k := nodedb.NodeKey{Target: "iqn.a", Address: "fe80::1%eth0", Port: 3261, Iface: "i0"}
	for _, tc := range []struct {
		m    nodedb.Match
		want bool
	}{
		{nodedb.Match{}, true},
		{nodedb.MatchKey(k), true},
		{nodedb.Match{Target: "iqn.a"}, true},
		{nodedb.Match{Target: "iqn.A"}, false},
		{nodedb.Match{Target: "iqn."}, false},
		{nodedb.Match{Address: "FE80:0:0::1%eth0"}, true},
		{nodedb.Match{Address: "fe80::1"}, false},
		{nodedb.Match{Address: "fe80::1%eth0", Port: 3260}, false},
		{nodedb.Match{Port: 3261}, true},
		{nodedb.Match{Iface: "default"}, false},
	} {
		if got := tc.m.Matches(k); got != tc.want {
			t.Errorf("%+v matches: %v, want %v", tc.m, got, tc.want)
		}
	}
}

func TestNodeRefsByTargetDoNotMatchPrefixes(t *testing.T) {
	db := newDB(t)
	put(t, db, newNode(t, key("iqn.a", "10.0.0.1"), 1), newNode(t, key("iqn.ab", "10.0.0.1"), 1))
	if got := refs(t, db, nodedb.Match{Target: "iqn.a"}); !slices.Equal(got, []string{"iqn.a 10.0.0.1,3260,1 default"}) {
		t.Errorf("records %q", got)
	}
}

func TestResolve(t *testing.T) {
	r := func() *names {
		return &names{hosts: map[string]string{"san": "10.0.0.1", "san.example.com": "10.0.0.1", "six": "2001:db8::1", "other": "10.0.0.9"}}
	}
	for _, tc := range []struct {
		pattern, record string
		want            bool
		asked           int
	}{
		{"10.0.0.1", "10.0.0.1", true, 0},
		{"10.0.0.1", "10.0.0.2", false, 0},
		{"::ffff:10.0.0.1", "10.0.0.1", true, 0},
		{"san", "10.0.0.1", true, 1},
		{"10.0.0.1", "san", true, 1},
		{"san", "san.example.com", true, 2},
		{"six", "2001:DB8:0::1", true, 1},
		{"san", "10.0.0.2", false, 1},
		{"nosuchhost", "10.0.0.1", false, 1},
		{"10.0.0.1", "nosuchhost", false, 1},
	} {
		t.Run(tc.pattern+" "+tc.record, func(t *testing.T) {
			db, res := newDB(t), r()
			put(t, db, newNode(t, key("iqn.a", tc.record), 1))
			m, err := db.Resolve(context.Background(), nodedb.Match{Address: tc.pattern, Port: 3260}, res)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(refs(t, db, m)) == 1; got != tc.want || len(res.asked) != tc.asked {
				t.Errorf("matches %v, asked for %q; want %v and %d questions", got, res.asked, tc.want, tc.asked)
			}
		})
	}
}

func TestResolveAsksForANameOnce(t *testing.T) {
	db, res := newDB(t), &names{}
	for i := range 5 {
		put(t, db, newNode(t, key(fmt.Sprint("iqn.", i), "san"), 1))
	}
	if _, err := db.Resolve(context.Background(), nodedb.Match{Address: "other"}, res); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(res.asked, []string{"san"}) {
		t.Errorf("asked for %q", res.asked)
	}
}

func TestResolveAsksOnlyForRecordsThatCouldMatch(t *testing.T) {
	db, res := newDB(t), &names{}
	put(t, db, newNode(t, key("iqn.a", "nosuchhost"), 1))
	for _, m := range []nodedb.Match{{Target: "iqn.b", Address: "10.0.0.1"}, {Address: "10.0.0.1", Port: 1}, {Address: "10.0.0.1", Iface: "i0"}, {Target: "iqn.a"}} {
		if _, err := db.Resolve(context.Background(), m, res); err != nil || res.asked != nil {
			t.Errorf("%+v: asked for %q, %v", m, res.asked, err)
		}
	}
}

func TestResolveEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m := nodedb.Match{Address: "san"}
	if _, err := m.Resolve(ctx, &names{}, []nodedb.NodeKey{key("iqn.a", "x"), key("iqn.a", "y")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
