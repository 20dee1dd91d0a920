// Reads scrape configurations as the programs do that they are written for: with the loader of Prometheus 3, as a server or as an
// agent, discovery in Kubernetes included, and with that of vmagent. Prints nothing where all is well.
//
//	readers prometheus|agent FILE
//	readers vmagent -promscrape.config=FILE
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/promscrape"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/file"
	_ "github.com/prometheus/prometheus/discovery/kubernetes"
)

func prometheus(file string, agent bool) error {
	loaded, err := config.LoadFile(file, agent, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	scrapes, err := loaded.GetScrapeConfigs()
	if err == nil && len(scrapes) == 0 {
		err = fmt.Errorf("%s: nothing is scraped", file)
	}
	return err
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: readers prometheus|agent|vmagent FILE")
	}
	switch kind := arguments[0]; kind {
	case "prometheus", "agent":
		return prometheus(arguments[1], kind == "agent")
	case "vmagent":
		if err := flag.CommandLine.Parse(arguments[1:]); err != nil {
			return err
		}
		return promscrape.CheckConfig()
	default:
		return fmt.Errorf("%q: neither prometheus, agent nor vmagent", kind)
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
