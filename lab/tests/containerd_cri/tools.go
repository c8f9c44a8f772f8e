//go:build tools

// Package containerd_cri pins the foreign programs that the story of containerd's CRI is told with: a caller of gRPC, the
// interface that it calls, and the loopback plugin without which containerd makes no sandbox. Nothing here is built into
// Meshwork.
package containerd_cri

import (
	_ "github.com/containernetworking/plugins/plugins/main/loopback"
	_ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
	_ "k8s.io/cri-api/pkg/apis/runtime/v1"
)
