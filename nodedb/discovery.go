package nodedb

import (
	"log/slog"
	"maps"
)

// A Discovery is the record of a place to discover targets at, with the
// settings for doing so. The zero Discovery is not usable: records come from
// [NewDiscovery], [DiscoveryFromMap] or the database.
type Discovery struct{ record }

// NewDiscovery returns a record for key with the settings that conf gives new
// records; nil means the shipped ones. Only SendTargets and ISNS have records.
// The error is a *NameError.
func NewDiscovery(conf *Config, key DiscoveryKey) (*Discovery, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	d := &Discovery{newRecord(discoveryTable(key.Type))}
	conf.orShipped().fill(&d.record)
	d.put(FieldDiscType, string(key.Type))
	d.put(FieldDiscAddress, key.Address)
	d.put(FieldDiscPort, itoa(key.Port))
	return d, nil
}

// DiscoveryFromMap makes a record of the fields in m, as NodeFromMap does. The
// type decides which fields there are.
func DiscoveryFromMap(m map[string]string) (*Discovery, error) {
	typ := DiscoveryType(m[FieldDiscType])
	if typ == "" {
		typ = SendTargets
	}
	t := discoveryTable(typ)
	if t == nil {
		return nil, &NameError{What: "discovery type", Name: string(typ), Reason: "has no records"}
	}
	d := &Discovery{newRecord(t)}
	if err := d.loadMap(m); err != nil {
		return nil, err
	}
	if err := d.Key().Validate(); err != nil {
		return nil, err
	}
	return d, nil
}

// Clone returns a copy.
func (d *Discovery) Clone() *Discovery { return &Discovery{d.clone()} }

// Key returns what identifies the record.
func (d *Discovery) Key() DiscoveryKey {
	return DiscoveryKey{Type: DiscoveryType(d.get(FieldDiscType)), Address: d.get(FieldDiscAddress), Port: d.Int(FieldDiscPort)}
}

// Set changes one field; see Apply.
func (d *Discovery) Set(name, value string) error {
	_, err := d.Apply([]Param{{name, value}})
	return err
}

// Apply changes fields in order, all or none. Warnings and errors are as for
// [Node.Apply].
func (d *Discovery) Apply(params []Param) (warnings []string, err error) {
	return d.apply(params, d.verify)
}

// Equal reports whether both records have the same values.
func (d *Discovery) Equal(o *Discovery) bool { return maps.Equal(d.Map(), o.Map()) }

// String identifies the record; it shows no settings.
func (d Discovery) String() string { return d.Key().String() }

// GoString identifies the record; it keeps %#v from showing secrets.
func (d Discovery) GoString() string { return d.String() }

// LogValue implements slog.LogValuer; it shows no settings.
func (d Discovery) LogValue() slog.Value { return slog.StringValue(d.String()) }
