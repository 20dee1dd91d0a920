//! The two pictures of the last hour, each with its figures as a table.
//!
//! A picture has no view box, so that its letters keep their size on any screen; its plane is a picture of its own that
//! is stretched.

use maud::{Markup, PreEscaped, html};

use super::scale::{ByteAxis, HEIGHT, Run, TimeAxis, WIDTH, area, gaps, line, runs};
use super::text::{clock, rfc3339, signed_bytes};
use crate::human::{self, printable};
use crate::report::{Levels, Report};
use crate::series::Point;

/// Processes shown by name in the picture of owners: as many as colours can be told apart.
const OWNERS_MAX: usize = 6;
/// Rows of a table of figures.
const ROWS_MAX: usize = 13;
/// Columns that tell their figures under the pointer.
const HOVERS_MAX: usize = 60;

/// Where the plane begins, pixels: half a letter from the top. Names of bytes stand left of it, in the padding.
const TOP: f64 = 8.0;

/// Both pictures, or why there are none.
pub(super) fn pictures(report: &Report) -> Markup {
    let interval = report.watch.interval_seconds.max(0.001);
    let points = &report.history;
    let Some(time) = TimeAxis::of(points, interval) else {
        return html! {
            section.pictures aria-label="The last hour" {
                p.quiet { "There will be pictures once there are samples." }
            }
        };
    };
    let runs = runs(points, &time, interval);
    html! {
        section.pictures aria-label="The last hour" {
            (memory(report, &time, &runs))
            (owners(report, &time, &runs))
        }
    }
}

fn memory(report: &Report, time: &TimeAxis, runs: &[Run<'_>]) -> Markup {
    let levels = named(report.host.tcp_memory_limit);
    let known = |point: &&Point| point.tcp_memory_bytes.map(|bytes| (point.timestamp, bytes as f64));
    let most = report.history.iter().filter_map(|point| point.tcp_memory_bytes).max().unwrap_or(0);
    // A level that is not far above is the picture's point; one that is would press the curve flat.
    let near = levels.iter().map(|(_, bytes)| *bytes).filter(|level| level / 2 <= most);
    let bytes = ByteAxis::to(near.fold(most, u64::max) as f64);
    let (inside, beyond): (Vec<_>, Vec<_>) = levels.iter().partition(|(_, level)| *level as f64 <= bytes.top);
    let newest = report.history.last().and_then(|point| point.tcp_memory_bytes);
    let text = format!(
        "{} now, at most {} in this time. {}",
        newest.map_or("Not known".to_owned(), human::bytes),
        human::bytes(most),
        match report.host.tcp_memory_limit {
            Some(levels) => format!(
                "tcp_mem: min {}, pressure {}, max {}.",
                human::bytes(levels.min_bytes),
                human::bytes(levels.pressure_bytes),
                human::bytes(levels.max_bytes)
            ),
            None => "The levels of tcp_mem are not known.".to_owned(),
        }
    );
    let plane = html! {
        @for run in runs {
            @let places = places(run, report, time, known, &bytes);
            @let floor: Vec<_> = places.iter().map(|(x, _)| (*x, HEIGHT)).collect();
            path.fill d=(area(&places, &floor)) {}
            path.curve d=(line(&places)) vector-effect="non-scaling-stroke" {}
        }
        @for (name, level) in &inside {
            @let y = bytes.y(*level as f64);
            line class={ "level " (name) } x1="0" x2=(WIDTH) y1=(y) y2=(y) vector-effect="non-scaling-stroke" {}
        }
        (hovers(report, time, |point| {
            format!("TCP memory {}", point.tcp_memory_bytes.map_or("not known".to_owned(), human::bytes))
        }))
    };
    let labels = html! {
        @for (name, level) in &inside {
            @let y = TOP + bytes.y(*level as f64);
            // Above its line, unless that is too near to the top.
            text class={ "level-name " (name) } x="100%" y=(if y < 16.0 { y + 15.0 } else { y - 5.0 }) {
                (name) " " (human::bytes(*level))
            }
        }
    };
    html! {
        figure #memory data-bytes=[newest] {
            figcaption {
                h2 { "TCP memory" }
                p.beyond {
                    @if report.host.tcp_memory_limit.is_none() { "the levels of tcp_mem are not known" }
                    @else if beyond.is_empty() { "levels of tcp_mem dashed" }
                    @else {
                        "\u{2191} above this scale: "
                        @for (at, (name, level)) in beyond.iter().enumerate() {
                            @if at > 0 { ", " }
                            span.name { (name) " " (human::bytes(*level)) }
                        }
                    }
                }
            }
            (picture("memory", "TCP memory of the host over time", &text, time, &bytes, runs, &plane, &labels))
            details #memory-figures {
                summary { "Figures" }
                div.scroll role="region" aria-label="TCP memory over time" tabindex="0" {
                    table {
                        thead { tr { th scope="col" { "UTC" } th.num scope="col" { "TCP memory" } th scope="col" { "pressure" } } }
                        tbody {
                            @for point in rows(&report.history) {
                                tr {
                                    th scope="row" { (moment(point)) }
                                    td.num { (known_bytes(point.tcp_memory_bytes.map(u64::cast_signed))) }
                                    td { (match point.memory_pressure { Some(true) => "yes", Some(false) => "no", None => "\u{2013}" }) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One band of the picture of owners.
struct Band {
    class: String,
    name: String,
    of: Box<dyn Fn(&Point) -> i64>,
}

fn owners(report: &Report, time: &TimeAxis, runs: &[Run<'_>]) -> Markup {
    let bands = bands(&report.history);
    let all = bands.len();
    let bytes = ByteAxis::to(report.history.iter().map(|point| heap(&bands, point, all)).fold(0.0, f64::max));
    let border = |run: &Run<'_>, count: usize| {
        places(run, report, time, |point| Some((point.timestamp, heap(&bands, point, count))), &bytes)
    };
    let newest = report.history.last();
    let text = newest.map_or(String::new(), |point| {
        let said = bands.iter().filter(|band| (band.of)(point) != 0);
        let said: Vec<_> =
            said.map(|band| format!("{} {}", band.name, human::signed_bytes((band.of)(point)))).collect();
        format!("Now: {}.", said.join(", "))
    });
    let plane = html! {
        @for run in runs {
            @for (above, band) in bands.iter().enumerate() {
                path class={ "band " (band.class) } d=(area(&border(run, above + 1), &border(run, above))) vector-effect="non-scaling-stroke" {}
            }
        }
        (hovers(report, time, |point| {
            let said = bands.iter().rev().filter(|band| (band.of)(point) != 0);
            let said: Vec<_> = said.map(|band| format!("{}: {}", band.name, human::signed_bytes((band.of)(point)))).collect();
            said.join("\n")
        }))
    };
    html! {
        figure #owners {
            figcaption {
                h2 { "Who holds it" }
                p.beyond { "accept queues count for their listener's process" }
            }
            (picture("owners", "TCP memory by owner over time", &text, time, &bytes, runs, &plane, &PreEscaped(HATCH.to_owned())))
            ul.legend {
                // From the top down, as the bands lie.
                @for band in bands.iter().rev() {
                    li {
                        svg.swatch aria-hidden="true" { rect class={ "band " (band.class) } width="100%" height="100%" {} }
                        bdi.name { (band.name) } " "
                        @if let Some(point) = newest { (signed_bytes((band.of)(point))) }
                    }
                }
            }
            details #owners-figures {
                summary { "Figures" }
                div.scroll role="region" aria-label="TCP memory by owner over time" tabindex="0" {
                    table {
                        thead { tr { th scope="col" { "UTC" } @for band in &bands { th.num scope="col" { bdi { (band.name) } } } } }
                        tbody {
                            @for point in rows(&report.history) {
                                tr {
                                    th scope="row" { (moment(point)) }
                                    @for band in &bands { td.num { (signed_bytes((band.of)(point))) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How high the lowest `count` bands are together. What is below zero has no height.
fn heap(bands: &[Band], point: &Point, count: usize) -> f64 {
    bands.iter().take(count).map(|band| (band.of)(point).max(0) as f64).sum()
}

/// From the bottom up: who held most over the whole time, then everybody else.
fn bands(history: &[Point]) -> Vec<Band> {
    let mut held: Vec<((u32, &str), i64)> = Vec::new();
    for owner in history.iter().flat_map(|point| &point.owners) {
        let name = (owner.pid, owner.process.as_str());
        match held.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += owner.memory_bytes,
            None => held.push((name, owner.memory_bytes)),
        }
    }
    held.sort_by_key(|(name, sum)| (std::cmp::Reverse(*sum), *name));
    held.truncate(OWNERS_MAX);
    held.retain(|(_, sum)| *sum > 0);
    let named: Vec<(u32, String)> = held.iter().map(|((pid, name), _)| (*pid, (*name).to_owned())).collect();
    // By pid, so that a process keeps its colour when it overtakes another.
    let mut pids: Vec<u32> = named.iter().map(|(pid, _)| *pid).collect();
    pids.sort_unstable();
    let of = |point: &Point, pid: u32, name: &str| {
        point
            .owners
            .iter()
            .find(|owner| owner.pid == pid && owner.process == name)
            .map_or(0, |owner| owner.memory_bytes)
    };
    let mut bands: Vec<Band> = named
        .iter()
        .cloned()
        .map(|(pid, name)| Band {
            class: format!("owner-{}", pids.iter().position(|other| *other == pid).unwrap_or(0)),
            name: format!("{} ({pid})", printable(&name)),
            of: Box::new(move |point| of(point, pid, &name)),
        })
        .collect();
    let rest = move |point: &Point| {
        let shown: i64 = named.iter().map(|(pid, name)| of(point, *pid, name)).sum();
        point.held.process_bytes + point.held.accept_queue_bytes - shown
    };
    let mut add = |class: &str, name: &str, of: Box<dyn Fn(&Point) -> i64>| {
        bands.push(Band { class: class.to_owned(), name: name.to_owned(), of });
    };
    add("other", "other processes", Box::new(rest));
    add("orphans", "orphans", Box::new(|point| point.held.orphan_bytes));
    add("unresolved", "unresolved", Box::new(|point| point.held.unresolved_bytes));
    add("unattributed", "unattributed", Box::new(|point| point.held.unattributed_bytes.unwrap_or(0)));
    bands
}

/// Where the points of a run lie in the plane. A sample that stands alone is as wide as its interval.
fn places(
    run: &Run<'_>,
    report: &Report,
    time: &TimeAxis,
    value: impl Fn(&&Point) -> Option<(f64, f64)>,
    bytes: &ByteAxis,
) -> Vec<(f64, f64)> {
    let mut places: Vec<_> = run.iter().filter_map(value).collect();
    if let [(timestamp, value)] = places[..] {
        let half = report.watch.interval_seconds / 2.0;
        places = vec![(timestamp - half, value), (timestamp + half, value)];
    }
    places.into_iter().map(|(timestamp, value)| (time.x(timestamp), bytes.y(value))).collect()
}

/// Columns over the whole plane, each telling what its newest sample says.
fn hovers(report: &Report, time: &TimeAxis, tell: impl Fn(&Point) -> String) -> Markup {
    let mut columns: Vec<&Point> = Vec::new();
    let width = WIDTH / HOVERS_MAX as f64;
    for point in &report.history {
        let column = |point: &Point| (time.x(point.timestamp) / width).floor();
        match columns.last_mut() {
            Some(last) if column(last).total_cmp(&column(point)).is_eq() => *last = point,
            _ => columns.push(point),
        }
    }
    html! {
        @for point in columns {
            rect.hover x=(format!("{:.1}", time.x(point.timestamp) - width)) y="0" width=(format!("{width:.1}")) height=(HEIGHT) {
                title { (clock(point.timestamp)) " UTC\n" (tell(point)) }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a picture")]
fn picture(
    id: &str,
    title: &str,
    text: &str,
    time: &TimeAxis,
    bytes: &ByteAxis,
    runs: &[Run<'_>],
    plane: &Markup,
    labels: &Markup,
) -> Markup {
    let name =
        |tick: f64| clock(tick).get(..if time.is_short() { 8 } else { 5 }).unwrap_or_default().to_owned();
    html! {
        svg.picture role="img" aria-labelledby={ (id) "-name " (id) "-text" } height="216" {
            title #{ (id) "-name" } { (title) }
            desc #{ (id) "-text" } { (text) }
            @for (value, name) in bytes.ticks() {
                @let y = TOP + bytes.y(value);
                line.grid x1="0" x2="100%" y1=(y) y2=(y) {}
                text.bytes x="-6" y=(y + 4.0) { (name) }
            }
            svg.plane y=(TOP) width="100%" height=(HEIGHT) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
                @for (from, to) in gaps(runs) {
                    rect.gap x=(time.x(from)) y="0" width=(time.x(to) - time.x(from)) height=(HEIGHT) {
                        title { "No samples from " (clock(from)) " to " (clock(to)) " UTC" }
                    }
                }
                (plane)
            }
            (labels)
            @for tick in time.ticks() {
                @let across = time.x(tick) / WIDTH * 100.0;
                line.tick x1={ (format!("{across:.2}")) "%" } x2={ (format!("{across:.2}")) "%" } y1=(TOP + HEIGHT) y2=(TOP + HEIGHT + 5.0) {}
                text class={ "time" (if across < 6.0 { " first" } else if across > 94.0 { " last" } else { "" }) }
                    x={ (format!("{across:.2}")) "%" } y=(TOP + HEIGHT + 20.0) { (name(tick)) }
            }
        }
    }
}

/// What is not attributed is not a plain colour.
const HATCH: &str = r#"<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" class="hatch-ground"/><rect width="2" height="6" class="hatch-line"/></pattern></defs>"#;

fn named(levels: Option<Levels>) -> Vec<(&'static str, u64)> {
    levels.map_or_else(Vec::new, |levels| {
        vec![("min", levels.min_bytes), ("pressure", levels.pressure_bytes), ("max", levels.max_bytes)]
    })
}

/// Some points, newest first and evenly chosen: what a table can show of an hour.
fn rows(history: &[Point]) -> impl Iterator<Item = &Point> {
    let step = history.len().div_ceil(ROWS_MAX).max(1);
    history.iter().rev().step_by(step)
}

fn moment(point: &Point) -> Markup {
    html! { time datetime=(rfc3339(point.timestamp)) { (clock(point.timestamp)) } }
}

fn known_bytes(bytes: Option<i64>) -> Markup {
    bytes.map_or_else(|| html! { "\u{2013}" }, signed_bytes)
}
