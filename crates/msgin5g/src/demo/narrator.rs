//! How the demo is told: to a person as numbered scenes, to a program as one JSON object a line.

use std::{
    io::{self, IsTerminal},
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::outcome::{Failure, Output};

/// Something worth telling.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    /// The network runs.
    Ready { lab_json: &'a str },
    /// A scene begins.
    Scene { number: u32, title: &'a str },
    /// What goes on.
    Told { text: &'a str },
    /// Somebody proved something to somebody.
    Proved { prover: &'a str, verifier: &'a str, by: &'a str },
    /// Something arrived.
    Delivered { what: &'a str, from: &'a str, to: &'a str, answer: &'a str, latency_microseconds: u128 },
    /// Somebody was refused, as it should be.
    Refused { who: &'a str, attempt: &'a str, answer: &'a str, because: &'a str },
    /// A claim held.
    Held { claim: &'a str },
    /// A claim did not hold, or something could not be done.
    Broken { reason: &'a str },
    /// The end.
    Summary { scenes: u32, deliveries: usize, refusals: usize, claims: usize, milliseconds: u128, all_held: bool },
}

/// A delivery or a refusal, for the table at the end.
enum Row {
    Delivery { what: String, from: String, to: String, answer: String, latency: Duration },
    Refusal { who: String, attempt: String, answer: String },
}

/// Tells the story and keeps the score.
pub(crate) struct Narrator {
    output: Output,
    colour: bool,
    started: Instant,
    scenes: u32,
    claims: usize,
    rows: Vec<Row>,
    /// The first thing that could not be written.
    unwritten: Option<Failure>,
}

/// Styles of a terminal (ECMA-48 8.3.117).
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
}

impl Narrator {
    pub(crate) fn new(output: Output) -> Self {
        // https://no-color.org
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let colour = wanted && !output.json() && io::stdout().is_terminal();
        Self { output, colour, started: Instant::now(), scenes: 0, claims: 0, rows: Vec::new(), unwritten: None }
    }

    /// The network runs.
    pub(crate) fn ready(&mut self, lab_json: &Path) {
        let lab_json = lab_json.display().to_string();
        self.tell(&Event::Ready { lab_json: &lab_json }, &format!("READY {lab_json}"));
    }

    /// Begins a scene.
    pub(crate) fn scene(&mut self, title: &str) {
        self.scenes += 1;
        let text = format!("\n{}", self.styled(Style::Bold, &format!("{:>2}. {title}", self.scenes)));
        self.tell(&Event::Scene { number: self.scenes, title }, &text);
    }

    /// Says what goes on.
    pub(crate) fn say(&mut self, text: &str) {
        self.tell(&Event::Told { text }, &format!("      {text}"));
    }

    /// Somebody proved itself.
    pub(crate) fn proved(&mut self, prover: &str, verifier: &str, by: &str) {
        let text = format!("    {} {prover} to {verifier}: {by}", self.styled(Style::Green, "⊢"));
        self.tell(&Event::Proved { prover, verifier, by }, &text);
    }

    /// Something arrived.
    pub(crate) fn delivered(&mut self, what: &str, (from, to): (&str, &str), answer: &str, latency: Duration) {
        let arrow = self.styled(Style::Green, "→");
        let time = self.styled(Style::Dim, &milliseconds(latency));
        let text = format!("    {arrow} {from} → {to}: {what}; {answer}, {time}");
        let latency_microseconds = latency.as_micros();
        self.tell(&Event::Delivered { what, from, to, answer, latency_microseconds }, &text);
        self.rows.push(Row::Delivery {
            what: what.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            answer: answer.to_owned(),
            latency,
        });
    }

    /// Somebody was refused, as it should be.
    pub(crate) fn refused(&mut self, who: &str, attempt: &str, answer: &str, because: &str) {
        let cross = self.styled(Style::Red, "✗");
        let answered = self.styled(Style::Bold, answer);
        let text = format!("    {cross} {who} {attempt}\n      refused with {answered}: {because}");
        self.tell(&Event::Refused { who, attempt, answer, because }, &text);
        let row = Row::Refusal { who: who.to_owned(), attempt: attempt.to_owned(), answer: answer.to_owned() };
        self.rows.push(row);
    }

    /// A claim held.
    pub(crate) fn held(&mut self, claim: &str) {
        self.claims += 1;
        self.tell(&Event::Held { claim }, &format!("    {} {claim}", self.styled(Style::Green, "✓")));
    }

    /// The story ends before its time.
    pub(crate) fn broken(&mut self, reason: &str) {
        self.tell(&Event::Broken { reason }, &format!("    {} {reason}", self.styled(Style::Red, "✗ BROKEN:")));
    }

    /// The end: every delivery and refusal in one table.
    pub(crate) fn summary(&mut self, all_held: bool) {
        let deliveries = self.rows.iter().filter(|row| matches!(row, Row::Delivery { .. })).count();
        let refusals = self.rows.len() - deliveries;
        let milliseconds = self.started.elapsed().as_millis();
        let text = self.table(deliveries, refusals, all_held);
        let (scenes, claims) = (self.scenes, self.claims);
        self.tell(&Event::Summary { scenes, deliveries, refusals, claims, milliseconds, all_held }, &text);
    }

    /// Whether all of it could be told.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.unwritten.map_or(Ok(()), Err)
    }

    fn table(&self, deliveries: usize, refusals: usize, all_held: bool) -> String {
        let width = |cell: fn(&Row) -> usize| self.rows.iter().map(cell).max().unwrap_or_default();
        let (first, second) = (width(|row| row.cells().0.chars().count()), width(|row| row.cells().1.chars().count()));
        let mut lines = vec![String::new(), self.styled(Style::Bold, "    What happened")];
        for row in &self.rows {
            let (who, what, outcome) = row.cells();
            let outcome = match row {
                Row::Delivery { latency, .. } => format!("{outcome:<20} {:>10}", milliseconds(*latency)),
                Row::Refusal { .. } => outcome,
            };
            lines.push(format!("    {who:<first$}  {what:<second$}  {outcome}"));
        }
        let verdict = if all_held {
            self.styled(Style::Green, "all of it held")
        } else {
            self.styled(Style::Red, "NOT all of it held")
        };
        let took = milliseconds(self.started.elapsed());
        lines.push(format!(
            "\n    {deliveries} deliveries, {refusals} refusals, {} claims in {took}: {verdict}",
            self.claims
        ));
        lines.join("\n")
    }

    fn tell(&mut self, event: &Event<'_>, text: &str) {
        let written = self.output.print(event, |_| text.to_owned());
        if let (Err(failure), None) = (written, &self.unwritten) {
            self.unwritten = Some(failure);
        }
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Green => 32,
            Style::Red => 31,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

impl Row {
    /// Who, what, and how it ended.
    fn cells(&self) -> (String, String, String) {
        match self {
            Self::Delivery { what, from, to, answer, .. } => (format!("{from} → {to}"), what.clone(), answer.clone()),
            Self::Refusal { who, attempt, answer } => (who.clone(), attempt.clone(), format!("✗ {answer}")),
        }
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
