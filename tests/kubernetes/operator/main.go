// Reads objects of the Prometheus Operator as JSON, one a line, into the operator's own types, and refuses what these do not have.
// Prints nothing where all is well.
package main

import (
	"bufio"
	"fmt"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/json"
)

// lineMax is more than the API server takes of one object (1.5 MiB in etcd).
const lineMax = 4 << 20

func check(line []byte) error {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.UnmarshalCaseSensitivePreserveInts(line, &head); err != nil {
		return err
	}
	known := map[string]any{
		monitoring.PodMonitorsKind:    &monitoring.PodMonitor{},
		monitoring.PrometheusRuleKind: &monitoring.PrometheusRule{},
	}
	object, ok := known[head.Kind]
	if !ok || head.APIVersion != monitoring.SchemeGroupVersion.String() {
		return fmt.Errorf("%s %s is not of a kind known here", head.APIVersion, head.Kind)
	}
	unknown, err := json.UnmarshalStrict(line, object)
	if err != nil {
		return fmt.Errorf("%s: %w", head.Kind, err)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s: %v", head.Kind, unknown)
	}
	return nil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineMax)
	read := 0
	for lines.Scan() {
		read++
		if err := check(lines.Bytes()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := lines.Err(); err != nil || read == 0 {
		fmt.Fprintln(os.Stderr, "nothing to check:", err)
		os.Exit(2)
	}
}
