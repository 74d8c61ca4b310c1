// Package chap is the initiator's end of the Challenge Handshake Authentication
// Protocol as RFC 7143 section 12.1.3 uses it: a state machine over text keys,
// without any input or output.
//
// The initiator offers its algorithms; the target picks one and sends a
// challenge; the initiator answers with its name and response and, for mutual
// authentication, a challenge of its own, to which the target answers in turn:
//
//	I→T  CHAP_A=5,7
//	T→I  CHAP_A=7 CHAP_I=… CHAP_C=…
//	I→T  CHAP_N=… CHAP_R=…  (CHAP_I=… CHAP_C=…)
//	T→I                     (CHAP_N=… CHAP_R=…)
//
// An Initiator is used by one goroutine, for one login; a History may be shared.
package chap
