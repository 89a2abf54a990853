//! The figures, as a table for people and as JSON.

use std::io::Write;

use serde::Serialize;

use crate::latency::LatencySummary;
use crate::{Arguments, BenchError};

/// One measured figure. What does not apply is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) work: String,
    /// By which server.
    pub(crate) peer: &'static str,
    /// How many operations were measured.
    pub(crate) operations: u64,
    /// How many of them in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_second: Option<f64>,
    /// Time of the server's process for one, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_us: Option<f64>,
    /// Datagrams a second that an attacker sent meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attack_per_second: Option<f64>,
    /// How long one took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<LatencySummary>,
    /// Memory of the server's process for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_each: Option<f64>,
    /// Memory of the server's process in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resident_bytes: Option<u64>,
    /// What the server's files take on disk for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes_each: Option<f64>,
    /// From its start until the server listened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready_seconds: Option<f64>,
    /// Messages that the server had taken responsibility for and that did not arrive; contexts that it did not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Messages that arrived more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repeated: Option<u64>,
    /// Operations that the server refused.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) refused: u64,
    /// Why, in the server's words; of the first one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    seconds: u64,
    payload_octets: usize,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    processors: usize,
    system: String,
    /// Whether this program was built with optimisation; figures of a debug build mean nothing.
    optimised: bool,
}

impl Report {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        Self {
            machine: Machine::this(),
            seconds: arguments.seconds,
            payload_octets: arguments.payload_octets(),
            figures: Vec::new(),
        }
    }

    /// Takes a figure up, and shows it at once on standard error: a run takes minutes.
    pub(crate) fn add(&mut self, figure: Figure) {
        // Progress only.
        let _ = writeln!(std::io::stderr(), "{}", row(&figure));
        self.figures.push(figure);
    }

    pub(crate) fn print(&self, json: bool) -> Result<(), BenchError> {
        let mut out = std::io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self).map_err(std::io::Error::from)?;
            writeln!(out)?;
            return Ok(());
        }
        let machine = &self.machine;
        writeln!(out, "{}, {} processors, {}", machine.processor, machine.processors, machine.system)?;
        if !machine.optimised {
            writeln!(out, "NOT OPTIMISED: build with --release; these figures mean nothing")?;
        }
        writeln!(out, "\n{HEADINGS}\n{RULE}")?;
        for figure in &self.figures {
            writeln!(out, "{}", row(figure))?;
        }
        self.print_ratios(&mut out)?;
        Ok(())
    }

    /// Our figure over the peer's, for what both did.
    fn print_ratios(&self, out: &mut impl Write) -> Result<(), BenchError> {
        let mut heading = Some("\nmsgin5g : peer\n");
        for ours in self.figures.iter().filter(|figure| figure.peer == "msgin5g") {
            let theirs = self.figures.iter().find(|theirs| theirs.peer != "msgin5g" && theirs.work == ours.work);
            let Some(theirs) = theirs else { continue };
            let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs.filter(|theirs| *theirs > 0.0)?);
            let p99 = |figure: &Figure| figure.latency.map(|latency| latency.p99_ms);
            let ratios = [
                ("server time", ratio(ours.server_cpu_us, theirs.server_cpu_us)),
                ("rate", ratio(ours.per_second, theirs.per_second)),
                ("p99", ratio(p99(ours), p99(theirs))),
                ("memory", ratio(ours.bytes_each, theirs.bytes_each)),
            ];
            let text: Vec<_> =
                ratios.iter().filter_map(|(name, ratio)| ratio.map(|ratio| format!("{name} {ratio:.2}"))).collect();
            write!(out, "{}", heading.take().unwrap_or_default())?;
            writeln!(out, "{} : {}: {}", ours.work, theirs.peer, text.join(", "))?;
        }
        Ok(())
    }
}

impl Machine {
    fn this() -> Self {
        let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = information.lines().find(|line| line.starts_with("model name"));
        let name = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name.trim());
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: name.to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("Linux {}", release.trim()),
            optimised: !cfg!(debug_assertions),
        }
    }
}

const HEADINGS: &str = "| Work | Server | a second | server time each, us | p50 ms | p99 ms | max ms | memory each | in all | disk each | ready | lost | attack, a second |";
const RULE: &str = "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

fn row(figure: &Figure) -> String {
    let number = |number: Option<f64>, digits: usize| number.map_or(String::new(), |n| format!("{n:.digits$}"));
    let latency = figure.latency;
    let mut lost = figure.lost.map_or(String::new(), |lost| format!("{lost} of {}", figure.operations));
    if figure.refused > 0 {
        let why = figure.refusal.as_deref().unwrap_or("no reason given");
        lost.push_str(&format!(" ({} refused: {why})", figure.refused));
    }
    let cells = [
        figure.work.clone(),
        figure.peer.to_owned(),
        number(figure.per_second, 0),
        number(figure.server_cpu_us, 1),
        number(latency.map(|l| l.p50_ms), 2),
        number(latency.map(|l| l.p99_ms), 2),
        number(latency.map(|l| l.max_ms), 1),
        figure.bytes_each.map_or(String::new(), |bytes| format!("{:.2} KiB", bytes / 1_024.0)),
        figure.resident_bytes.map_or(String::new(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0)),
        figure.disk_bytes_each.map_or(String::new(), |bytes| format!("{bytes:.0} B")),
        figure.ready_seconds.map_or(String::new(), |seconds| format!("{seconds:.2} s")),
        lost,
        number(figure.attack_per_second, 0),
    ];
    format!("| {} |", cells.join(" | "))
}
