//! OpenMetrics 1.0.0, written by prometheus-client.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as RegistryUnit};

use super::catalog::{Kind, Label, Unit};
use super::{Family, Number, Point, families};
use crate::sample::Exposed;

/// The exposition of `exposed`.
pub(super) fn encode(exposed: &Exposed) -> String {
    // A registry for each scrape, so that a process that is gone leaves no series behind. The copy is cheap: the rows
    // are shared.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(exposed.clone())));
    let mut text = String::new();
    // Writing to a String cannot fail. If it did, `# EOF` would be missing, and the scraper would refuse the rest.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Snapshot(Exposed);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families(&self.0).iter().try_for_each(|family| encode_family(&mut encoder, family))
    }
}

fn encode_family(encoder: &mut DescriptorEncoder<'_>, family: &Family<'_>) -> fmt::Result {
    let metric = family.metric;
    let unit = match metric.unit {
        Unit::Bytes => Some(RegistryUnit::Bytes),
        Unit::Seconds => Some(RegistryUnit::Seconds),
        Unit::None => None,
    };
    let metric_type = match metric.kind {
        Kind::Counter => MetricType::Counter,
        // OpenMetrics' own info type is unknown to the classic format, and a metric has one type.
        Kind::Gauge | Kind::Info => MetricType::Gauge,
    };
    // The crate appends the unit and a counter's `_total`. It escapes no HELP: the catalog's tests keep it plain.
    let mut encoder = encoder.encode_descriptor(metric.stem(), metric.help, unit.as_ref(), metric_type)?;
    for Point { labels, number } in &family.points {
        if labels.is_empty() {
            encode_number(&mut encoder, metric.kind, *number)?;
        } else {
            let labels = Labels { names: metric.labels, values: labels };
            encode_number(&mut encoder.encode_family(&labels)?, metric.kind, *number)?;
        }
    }
    Ok(())
}

fn encode_number(encoder: &mut MetricEncoder<'_>, kind: Kind, number: Number) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Unsigned(value)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        }
        (Kind::Counter, Number::Float(value)) => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None),
        // The crate knows no signed counters.
        (Kind::Counter, Number::Signed(value)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&(value as f64), None)
        }
        (Kind::Gauge | Kind::Info, Number::Unsigned(value)) => encoder.encode_gauge(&value),
        (Kind::Gauge | Kind::Info, Number::Signed(value)) => encoder.encode_gauge(&value),
        (Kind::Gauge | Kind::Info, Number::Float(value)) => encoder.encode_gauge(&value),
    }
}

struct Labels<'a> {
    names: &'static [Label],
    values: &'a [Cow<'a, str>],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.names
            .iter()
            .zip(self.values)
            .try_for_each(|(label, value)| (label.name, value.as_ref()).encode(encoder.encode_label()))
    }
}
