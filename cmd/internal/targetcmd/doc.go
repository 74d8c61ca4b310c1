// Package targetcmd is the program iscsi-target: package iscsitest with flags.
//
// Flags are read in order. -T begins a target; the flags behind it that are
// about a target or its units belong to it, those before the first -T to all
// targets. So
//
//	iscsi-target -T iqn.2001-04.com.example:a -mem 1G -T iqn.2001-04.com.example:b -user u -password-file f -file disk.img
//
// serves an open target with a gigabyte of memory and one with CHAP and a
// file. Units are numbered from 1.
//
// Secrets come from files or the environment, never from arguments, which
// everyone on the machine can read.
package targetcmd
