package initiator

// Text keys of login and discovery (RFC 7143 sections 12 and 13).
const (
	keyAuthMethod           = "AuthMethod"
	keyInitiatorName        = "InitiatorName"
	keyInitiatorAlias       = "InitiatorAlias"
	keyTargetName           = "TargetName"
	keyTargetAlias          = "TargetAlias"
	keyTargetAddress        = "TargetAddress"
	keyTargetPortalGroupTag = "TargetPortalGroupTag"
	keySessionType          = "SessionType"
	keySendTargets          = "SendTargets"

	keyHeaderDigest             = "HeaderDigest"
	keyDataDigest               = "DataDigest"
	keyDefaultTime2Wait         = "DefaultTime2Wait"
	keyDefaultTime2Retain       = "DefaultTime2Retain"
	keyIFMarker                 = "IFMarker"
	keyOFMarker                 = "OFMarker"
	keyErrorRecoveryLevel       = "ErrorRecoveryLevel"
	keyInitialR2T               = "InitialR2T"
	keyImmediateData            = "ImmediateData"
	keyMaxBurstLength           = "MaxBurstLength"
	keyFirstBurstLength         = "FirstBurstLength"
	keyMaxOutstandingR2T        = "MaxOutstandingR2T"
	keyMaxConnections           = "MaxConnections"
	keyDataPDUInOrder           = "DataPDUInOrder"
	keyDataSequenceInOrder      = "DataSequenceInOrder"
	keyMaxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
)
