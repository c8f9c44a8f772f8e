//go:build tools

// Package cnitool pins the foreign CNI programs that the lab's stories are told with: the driver and four reference
// plugins. Nothing here is built into Meshwork.
package cnitool

import (
	_ "github.com/containernetworking/cni/cnitool"
	_ "github.com/containernetworking/plugins/plugins/main/ptp"
	_ "github.com/containernetworking/plugins/plugins/meta/bandwidth"
	_ "github.com/containernetworking/plugins/plugins/meta/portmap"
)
