package chap_test

import "github.com/goiscsi/goiscsi/initiator/internal/chap"

var responseVectors = []struct {
	alg  chap.Algorithm
	want string
}{
	{chap.MD5, "98d034a2632563c39c5f8e75171b9bf9"},
	{chap.SHA1, "876485f5c77bf9fdfb70ef1fbd7c7d3b9a569a56"},
	{chap.SHA256, "ca552a484f41a7531da251ed8c0f0566b58eb2e090f27defd5fb883528c63352"},
	{chap.SHA3256, "b2a8102eeeb8dcb3c4f95f2d176cd7980542c2bac5a77929726a3781e36d0de9"},
}
