package initiator

import "testing"

func TestCHAPMask(t *testing.T) {
	for _, tt := range []struct {
		name       string
		part, want []string
	}{
		{"whole", []string{"CHAP_N=user\x00CHAP_R=0xabcd\x00"}, []string{"CHAP_N=user\x00CHAP_R=******\x00"}},
		{"before others", []string{"CHAP_R=0xab\x00CHAP_N=u\x00"}, []string{"CHAP_R=****\x00CHAP_N=u\x00"}},
		{"in two parts", []string{"CHAP_N=u\x00CHAP_R=0xab", "cd\x00CHAP_I=1\x00"}, []string{"CHAP_N=u\x00CHAP_R=****", "**\x00CHAP_I=1\x00"}},
		{"key in two parts", []string{"CHAP", "_R=0xab\x00"}, []string{"CHAP", "_R=****\x00"}},
		{"equals sign in the value", []string{"CHAP_R=0s==\x00"}, []string{"CHAP_R=****\x00"}},
		{"longer key", []string{"CHAP_RX=0xab\x00XCHAP_R=0xab\x00"}, []string{"CHAP_RX=0xab\x00XCHAP_R=0xab\x00"}},
		{"no end", []string{"CHAP_R=0xab"}, []string{"CHAP_R=****"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m chapMask
			for i, p := range tt.part {
				text := []byte(p)
				m.apply(text, i < len(tt.part)-1)
				if string(text) != tt.want[i] {
					t.Errorf("part %d: %q, want %q", i, text, tt.want[i])
				}
			}
			text := []byte("left=alone\x00")
			if m.apply(text, false); string(text) != "left=alone\x00" {
				t.Errorf("the next text: %q", text)
			}
		})
	}
}
