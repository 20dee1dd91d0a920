"""Reads both formats with the reference client's parsers and prints, as JSON, the series they agree on.

Usage: judge.py OPENMETRICS_FILE CLASSIC_FILE. Exits 1 and says what is wrong if a parser refuses its text, if a series
is there twice, or if the two disagree on anything but what only OpenMetrics can say (the unit).
"""

import json
import sys

try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    from prometheus_client.parser import text_string_to_metric_families as classic
except ImportError:
    sys.exit("the Python client is missing: install Debian's package python3-prometheus-client")


def read(path, parse):
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    families, series = [], {}
    try:
        for family in parse(text):
            families.append((family.name, family.type, family.documentation))
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                if key in series:
                    sys.exit(f"{path}: {key} is there twice")
                # One parser keeps integers, the other makes all floats, which is what Prometheus stores.
                series[key] = float(sample.value)
    except ValueError as error:
        sys.exit(f"{path}: {error}")
    return families, series


def main():
    families, series = read(sys.argv[1], openmetrics)
    for what, one, other in zip(("families", "series"), (families, series), read(sys.argv[2], classic)):
        if one != other:
            one, other = (x.items() if isinstance(x, dict) else x for x in (one, other))
            sys.exit(f"the formats differ in their {what}: {sorted(set(one) ^ set(other))[:4] or 'the order'}")
    json.dump([[name, dict(labels), value] for (name, labels), value in series.items()], sys.stdout)


main()
