// Package blockdev brings a fresh block device into /dev, where no udev does
// so, and has the kernel read its partition table. It is Linux only.
package blockdev
