package pdu

// Keys of the text in login and text PDUs (RFC 7143 sections 12 and 13).
const (
	KeyAuthMethod           = "AuthMethod"
	KeyInitiatorName        = "InitiatorName"
	KeyInitiatorAlias       = "InitiatorAlias"
	KeyTargetName           = "TargetName"
	KeyTargetAlias          = "TargetAlias"
	KeyTargetAddress        = "TargetAddress"
	KeyTargetPortalGroupTag = "TargetPortalGroupTag"
	KeySessionType          = "SessionType"
	KeySendTargets          = "SendTargets"

	KeyHeaderDigest             = "HeaderDigest"
	KeyDataDigest               = "DataDigest"
	KeyMaxConnections           = "MaxConnections"
	KeyInitialR2T               = "InitialR2T"
	KeyImmediateData            = "ImmediateData"
	KeyMaxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
	KeyMaxBurstLength           = "MaxBurstLength"
	KeyFirstBurstLength         = "FirstBurstLength"
	KeyDefaultTime2Wait         = "DefaultTime2Wait"
	KeyDefaultTime2Retain       = "DefaultTime2Retain"
	KeyMaxOutstandingR2T        = "MaxOutstandingR2T"
	KeyDataPDUInOrder           = "DataPDUInOrder"
	KeyDataSequenceInOrder      = "DataSequenceInOrder"
	KeyErrorRecoveryLevel       = "ErrorRecoveryLevel"

	// The markers are obsolete (section 13.25) and still negotiated by some.
	KeyIFMarker = "IFMarker"
	KeyOFMarker = "OFMarker"
)
