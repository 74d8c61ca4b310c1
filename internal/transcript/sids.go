package transcript

// SIDs are the session ids that the logins of the transcript got, in the order
// of the logins, by "target address interface". Which of several logins that
// are sent at once gets which id is up to chance, there and here; a login that
// fails has taken an id all the same.
var SIDs = map[string][]int{
	"iqn.2016-01.com.example:chap 127.0.0.1 default":   {1, 2},
	"iqn.2016-01.com.example:mutual 127.0.0.1 default": {3, 5},
	tg1 + " 127.0.0.1 default":                         {4},
	"iqn.2016-01.com.example:mutual ::1 default":       {6},
	"iqn.2016-01.com.example:chap ::1 default":         {7},
	tg1 + " ::1 default":                               {8},
	tg1 + " 127.0.0.1 testif":                          {9},
	"iqn.static 127.0.0.1 default":                     {10},
	"iqn.static 127.0.0.3 default":                     {11},
}
