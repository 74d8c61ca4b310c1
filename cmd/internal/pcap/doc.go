// Package pcap writes the PDUs of a session to a file that Wireshark opens.
//
// The initiator has PDUs, Wireshark wants packets. So each PDU gets headers of IP
// and TCP around it that a conversation of the two ends would have had: their real
// addresses and ports, sequence numbers that follow one another, and a handshake
// before the first PDU of each connection. What is made up so cannot
// show what went on in TCP itself: for that there is tcpdump.
package pcap
