package iscsiadm

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/internal/portal"
	"github.com/goiscsi/goiscsi/nodedb"
)

// A firmwareEntry is one target of the iSCSI Boot Firmware Table, with the
// network interface and the initiator that belong to it, as the kernel shows
// them in /sys/firmware/ibft (Documentation/ABI/testing/sysfs-ibft).
type firmwareEntry struct {
	Index         int    `json:"index"`
	InitiatorName string `json:"initiator_name,omitempty"`
	Target        string `json:"target"`
	Address       string `json:"address"`
	Port          int    `json:"port"`
	LUN           string `json:"boot_lun,omitempty"`
	CHAPName      string `json:"chap_name,omitempty"`
	CHAPSecret    string `json:"-"`
	RevCHAPName   string `json:"rev_chap_name,omitempty"`
	RevCHAPSecret string `json:"-"`
	MAC           string `json:"hwaddress,omitempty"`
	IPAddress     string `json:"ipaddress,omitempty"`
	SubnetMask    string `json:"subnet_mask,omitempty"`
	PrefixLen     string `json:"prefix_len,omitempty"`
	Gateway       string `json:"gateway,omitempty"`
	PrimaryDNS    string `json:"primary_dns,omitempty"`
	SecondaryDNS  string `json:"secondary_dns,omitempty"`
	VLAN          string `json:"vlan_id,omitempty"`
	DHCP          string `json:"dhcp,omitempty"` // address of the DHCP server
	NetIface      string `json:"net_iface,omitempty"`
}

// maxAttribute bounds an attribute of sysfs: a page.
const maxAttribute = 4096

// readIBFT returns the valid targets of the table below sys, by their number,
// and an error for those that cannot be used. Most machines have no table: the
// error is then fs.ErrNotExist.
func readIBFT(sys string) ([]firmwareEntry, error) {
	root := filepath.Join(sys, "firmware", "ibft")
	dirs, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	read := func(dir, name string) string {
		b, err := os.ReadFile(filepath.Join(root, dir, name))
		if err != nil || len(b) > maxAttribute {
			return ""
		}
		return strings.TrimRight(strings.TrimRight(string(b), "\x00"), "\n")
	}
	var entries []firmwareEntry
	var errs []error
	for _, d := range dirs {
		number, ok := strings.CutPrefix(d.Name(), "target")
		index, err := strconv.Atoi(number)
		if !ok || err != nil || !usable(read(d.Name(), "flags")) {
			continue
		}
		t, n := d.Name(), "ethernet"+cmp.Or(read(d.Name(), "nic-assoc"), number)
		e := firmwareEntry{
			Index:         index,
			InitiatorName: read("initiator", "initiator-name"),
			Target:        read(t, "target-name"),
			Address:       read(t, "ip-addr"),
			LUN:           read(t, "lun"),
			CHAPName:      read(t, "chap-name"),
			CHAPSecret:    read(t, "chap-secret"),
			RevCHAPName:   read(t, "rev-chap-name"),
			RevCHAPSecret: read(t, "rev-chap-name-secret"),
			MAC:           read(n, "mac"),
			IPAddress:     address(read(n, "ip-addr")),
			SubnetMask:    read(n, "subnet-mask"),
			PrefixLen:     read(n, "prefix-len"),
			Gateway:       address(read(n, "gateway")),
			PrimaryDNS:    address(read(n, "primary-dns")),
			SecondaryDNS:  address(read(n, "secondary-dns")),
			VLAN:          vlan(read(n, "vlan")),
			DHCP:          address(read(n, "dhcp")),
		}
		e.Port = portal.DefaultPort
		if p, err := strconv.Atoi(read(t, "port")); err == nil && p > 0 {
			e.Port = p
		}
		e.NetIface = netIfaceIn(sys, e.MAC)
		if err := e.key().Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(root, t), err))
			continue
		}
		entries = append(entries, e)
	}
	if len(entries)+len(errs) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.SortFunc(entries, func(a, b firmwareEntry) int { return cmp.Compare(a.Index, b.Index) })
	return entries, errors.Join(errs...)
}

// usable reports whether the flags of a block say that it is valid (bit 0).
func usable(flags string) bool {
	n, err := strconv.ParseUint(flags, 0, 8)
	return err == nil && n&1 != 0
}

// address returns a, or nothing for what stands for no address.
func address(a string) string {
	if ip, err := netip.ParseAddr(a); err == nil && ip.IsUnspecified() {
		return ""
	}
	return a
}

// vlan returns v, or nothing for the number that stands for none.
func vlan(v string) string {
	if v == "0" {
		return ""
	}
	return v
}

// netIfaceIn returns the name of the network interface with a MAC address.
func netIfaceIn(sys, mac string) string {
	if mac == "" {
		return ""
	}
	names, err := os.ReadDir(filepath.Join(sys, "class", "net"))
	if err != nil {
		return ""
	}
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(sys, "class", "net", n.Name(), "address"))
		if err == nil && strings.EqualFold(strings.TrimSpace(string(b)), mac) {
			return n.Name()
		}
	}
	return ""
}

func (e *firmwareEntry) key() nodedb.NodeKey {
	return nodedb.NodeKey{Target: e.Target, Address: e.Address, Port: e.Port, Iface: nodedb.DefaultIface}
}

// node returns a record for the target. The machine may run from it, so the
// session is not to be ended because a ping is late, and the first login is
// to be tried for long.
func (e *firmwareEntry) node(conf *nodedb.Config) (*nodedb.Node, error) {
	n, err := nodedb.NewNode(conf, e.key(), -1)
	if err != nil {
		return nil, err
	}
	iface, err := nodedb.NewIface(nodedb.DefaultIface)
	if err != nil {
		return nil, err
	}
	n.SetIface(iface)
	params := []nodedb.Param{
		{Name: nodedb.FieldStartup, Value: "onboot"},
		{Name: nodedb.FieldConnStartup, Value: "onboot"},
		{Name: nodedb.FieldNoopOutInterval, Value: "0"},
		{Name: nodedb.FieldNoopOutTimeout, Value: "0"},
		{Name: nodedb.FieldInitialLoginRetryMax, Value: "30"},
	}
	if e.CHAPName != "" || e.CHAPSecret != "" {
		params = append(params,
			nodedb.Param{Name: nodedb.FieldAuthMethod, Value: "CHAP"},
			nodedb.Param{Name: nodedb.FieldUsername, Value: e.CHAPName},
			nodedb.Param{Name: nodedb.FieldPassword, Value: e.CHAPSecret})
	}
	if e.RevCHAPName != "" || e.RevCHAPSecret != "" {
		params = append(params,
			nodedb.Param{Name: nodedb.FieldUsernameIn, Value: e.RevCHAPName},
			nodedb.Param{Name: nodedb.FieldPasswordIn, Value: e.RevCHAPSecret})
	}
	if _, err := n.Apply(params); err != nil {
		return nil, err
	}
	n.SetDiscovery(nodedb.DiscoveryKey{Type: nodedb.Firmware})
	return n, nil
}

// printFirmware prints an entry as a record. Values that are not there have
// no line.
func (c *command) printFirmware(e *firmwareEntry) {
	field := func(name, value string) {
		if value != "" {
			c.printf("%s = %s\n", name, oneLine(value))
		}
	}
	secret := func(name, value string) {
		if value != "" && !c.req.show {
			value = "********"
		}
		field(name, value)
	}
	bootproto := "STATIC"
	if e.DHCP != "" {
		bootproto = "DHCP"
	}
	c.printRecordHead()
	field("iface.initiatorname", e.InitiatorName)
	field("iface.hwaddress", e.MAC)
	field("iface.bootproto", bootproto)
	field("iface.ipaddress", e.IPAddress)
	field("iface.subnet_mask", e.SubnetMask)
	field("iface.prefix_len", e.PrefixLen)
	field("iface.gateway", e.Gateway)
	field("iface.primary_dns", e.PrimaryDNS)
	field("iface.secondary_dns", e.SecondaryDNS)
	field("iface.vlan_id", e.VLAN)
	field("iface.net_ifacename", e.NetIface)
	field("node.name", e.Target)
	field("node.conn[0].address", e.Address)
	field("node.conn[0].port", strconv.Itoa(e.Port))
	field("node.boot_lun", e.LUN)
	field("node.session.auth.username", e.CHAPName)
	secret("node.session.auth.password", e.CHAPSecret)
	field("node.session.auth.username_in", e.RevCHAPName)
	secret("node.session.auth.password_in", e.RevCHAPSecret)
	c.printRecordTail()
}
