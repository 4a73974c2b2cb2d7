//! `statechart`: the picture of the machine, drawn from the table that the machine runs on.
//! Pure, and the same bytes each time: a test compares it with `statecharts/upgrade.svg`.
//!
//! The places of the boxes are set by hand, as in section 2 of the design; states, steps and
//! arrows come from the code. Self-contained: no script, no font, no link.

use std::fmt::Write;

use crate::machine::transition::TRANSITIONS;
use crate::machine::{Event, Phase, Step};

const WIDTH: i32 = 924;
const HEIGHT: i32 = 706;
const MARGIN: i32 = 14;

/// Width of a box, and from one box to the next.
const BOX: i32 = 120;
const PITCH: i32 = 194;

const TOP_ROW: i32 = 74;
const BACK_ROW: i32 = 392;
const LAST_ROW: i32 = 596;
const TOP_HEIGHT: i32 = 230;
const BACK_HEIGHT: i32 = 112;
const LAST_HEIGHT: i32 = 56;

const HEADER: i32 = 24;
const LINE: i32 = 17;

/// What is left beside the way back for the arrows that lead past it.
const PAST: i32 = 44;

/// Half the distance between two arrows that run side by side.
const BESIDE: i32 = 24;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2937}\
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}\
.title{font-size:15px;font-weight:600}\
.note{font-size:11px;fill:#4b5563}\
.state{font-size:13px;font-weight:700}\
.caption{font-size:10.5px;font-style:italic;fill:#4b5563}\
.step{font-size:10.5px}\
.number{font-size:10.5px;fill:#9ca3af}\
.undo{font-size:12px;fill:#b45309}\
.event{font-size:10px;fill:#374151}\
.arrow{fill:none;stroke:#4b5563;stroke-width:1.4}";

struct Frame {
    x: i32,
    y: i32,
    width: i32,
    height: i32,
}

impl Frame {
    fn middle_x(&self) -> i32 {
        self.x + self.width / 2
    }

    fn right(&self) -> i32 {
        self.x + self.width
    }

    fn bottom(&self) -> i32 {
        self.y + self.height
    }
}

/// The SVG.
pub(crate) fn svg() -> String {
    let mut picture = Picture(String::new());
    picture.line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-labelledby=\"title\">"
    ));
    picture.line(format_args!("<title id=\"title\">The machine of one hop of an upgrade</title>"));
    picture.line(format_args!("<style>{STYLE}</style>"));
    picture.line(format_args!(
        "<defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto-start-reverse\"><path d=\"M0 0.8 10 5 0 9.2z\" fill=\"#4b5563\"/></marker></defs>"
    ));
    picture.line(format_args!(
        "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\" fill=\"#fcfcfd\" stroke=\"#e5e7eb\"/>"
    ));
    picture.text(MARGIN + 4, 26, "title", "One hop: from the version that serves to the next");
    picture.begin();
    for phase in Phase::ALL {
        picture.state(phase);
    }
    for (from, to, events) in arrows() {
        picture.arrow(from, to, &events);
    }
    picture.legend();
    picture.line(format_args!("</svg>"));
    picture.0
}

/// Every pair of states with the events that lead from one to the other, in table order.
fn arrows() -> Vec<(Phase, Phase, Vec<Event>)> {
    let mut arrows: Vec<(Phase, Phase, Vec<Event>)> = Vec::new();
    for row in TRANSITIONS {
        match arrows.iter_mut().find(|(from, to, _)| (*from, *to) == (row.from, row.to)) {
            Some((_, _, events)) => events.push(row.event),
            None => arrows.push((row.from, row.to, vec![row.event])),
        }
    }
    arrows
}

/// The steps of a state with their numbers: one count leads forward, another back.
fn steps(phase: Phase) -> Vec<(usize, Step)> {
    let forward = Step::FORWARD.into_iter().chain(Step::AFTERWARDS).enumerate();
    let back = Step::BACKWARD.into_iter().enumerate();
    // In the place of the first start, where a person goes on with what had failed.
    let again = Step::FORWARD.iter().position(|step| *step == Step::StartNext);
    let mut steps: Vec<(usize, Step)> = forward
        .chain(back)
        .chain(again.map(|index| (index, Step::StartAgain)))
        .filter(|(_, step)| step.home() == phase)
        .map(|(index, step)| (index + 1, step))
        .collect();
    steps.sort_by_key(|(number, _)| *number);
    steps
}

fn frame(phase: Phase) -> Frame {
    let top = |column: i32| Frame {
        x: MARGIN + column * PITCH,
        y: TOP_ROW,
        width: BOX,
        height: TOP_HEIGHT,
    };
    match phase {
        Phase::Planned => top(0),
        Phase::BackedUp => top(1),
        Phase::Pulled => top(2),
        Phase::Swapped => top(3),
        Phase::Verified => top(4),
        Phase::RollingBack => {
            Frame { x: MARGIN, y: BACK_ROW, width: 3 * PITCH + BOX - PAST, height: BACK_HEIGHT }
        }
        Phase::RolledBack => Frame { y: BACK_ROW, height: BACK_HEIGHT, ..top(4) },
        Phase::NeedsOperator => Frame {
            x: MARGIN + PITCH + PITCH / 2 - 50,
            y: LAST_ROW,
            width: BOX + 100,
            height: LAST_HEIGHT,
        },
    }
}

/// Fill of the header, border.
fn colors(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Planned | Phase::BackedUp | Phase::Pulled | Phase::Swapped => ("#e0ecff", "#3b6fb6"),
        Phase::Verified | Phase::RolledBack => ("#dcf5e4", "#2f855a"),
        Phase::RollingBack => ("#fdeccf", "#b7791f"),
        Phase::NeedsOperator => ("#fde0e0", "#c53030"),
    }
}

/// Who serves meanwhile, and what keeps the promise.
fn caption(phase: Phase) -> &'static [&'static str] {
    match phase {
        Phase::Planned | Phase::BackedUp => &["old version serves"],
        Phase::Pulled => &["old version serves", "until quiesce"],
        Phase::Swapped => &["new version serves", "from its first answer"],
        Phase::Verified => &["new version serves"],
        Phase::RollingBack => &["what was begun is taken back, in reverse; \
             the old version passes the same verification as a new one"],
        Phase::RolledBack => &["old version serves,", "as before"],
        Phase::NeedsOperator => &["nothing moves until a person says so"],
    }
}

struct Picture(String);

impl Picture {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn text(&mut self, x: i32, y: i32, class: &str, text: &str) {
        self.line(format_args!("<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>"));
    }

    fn anchored(&mut self, x: i32, y: i32, class: &str, anchor: &str, text: &str) {
        self.line(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// The dot at which the machine begins.
    fn begin(&mut self) {
        let first = frame(Phase::Planned);
        let x = first.middle_x();
        let y = first.y - 28;
        self.line(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"#4b5563\"/>"));
        self.path(format_args!("M{x} {} V{}", y + 5, first.y - 1));
        self.text(x + 12, y + 4, "note", "a plan, accepted");
    }

    fn state(&mut self, phase: Phase) {
        let Frame { x, y, width, height } = frame(phase);
        let (fill, stroke) = colors(phase);
        if phase.is_final() {
            self.line(format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"11\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.4\"/>",
                x - 4,
                y - 4,
                width + 8,
                height + 8
            ));
        }
        self.line(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\" stroke=\"{stroke}\" stroke-width=\"1.4\"/>"
        ));
        let right = x + width;
        let below = y + HEADER;
        self.line(format_args!(
            "<path d=\"M{x} {below} V{} Q{x} {y} {} {y} H{} Q{right} {y} {right} {} V{below} Z\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"1.4\"/>",
            y + 8,
            x + 8,
            right - 8,
            y + 8
        ));
        self.anchored(x + width / 2, y + 17, "state", "middle", phase.chart_id());
        let mut at = below + 16;
        for caption in caption(phase) {
            self.anchored(x + width / 2, at, "caption", "middle", caption);
            at += 13;
        }
        // The steps begin at one height in a row, whatever the captions take.
        let first = match phase {
            Phase::RollingBack => below + 38,
            Phase::Planned
            | Phase::BackedUp
            | Phase::Pulled
            | Phase::Swapped
            | Phase::Verified
            | Phase::RolledBack
            | Phase::NeedsOperator => below + 54,
        };
        let columns = if phase == Phase::RollingBack { 5 } else { 1 };
        let pitch = (width - 8) / columns;
        for (index, (number, step)) in steps(phase).into_iter().enumerate() {
            // A state has at most ten steps.
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            let left = x + 22 + index % columns * pitch;
            self.step(left, first + index / columns * LINE, right, number, step);
        }
    }

    fn step(&mut self, x: i32, y: i32, right: i32, number: usize, step: Step) {
        self.anchored(x, y, "mono number", "end", &number.to_string());
        self.text(x + 5, y, "mono step", step.as_str());
        if step.compensation().is_some() {
            self.anchored(right - 6, y, "undo", "end", "↺");
        }
    }

    fn path(&mut self, path: std::fmt::Arguments<'_>) {
        self.line(format_args!("<path d=\"{path}\" class=\"arrow\" marker-end=\"url(#tip)\"/>"));
    }

    /// Boxes of one row are joined across, others from below or above.
    fn arrow(&mut self, from: Phase, to: Phase, events: &[Event]) {
        let (a, b) = (frame(from), frame(to));
        let border = if to.is_final() { 5 } else { 1 };
        match (from, to) {
            (Phase::Swapped, Phase::NeedsOperator) => return self.past(&a, &b, true, events),
            (Phase::NeedsOperator, Phase::Swapped) => return self.past(&b, &a, false, events),
            (_, _) => {}
        }
        if a.y == b.y {
            let y = a.y + if a.y == TOP_ROW { 108 } else { a.height / 2 };
            self.path(format_args!("M{} {y} H{}", a.right() + 1, b.x - border));
            let middle = (a.right() + b.x - border + 1) / 2 - 2;
            for (index, event) in (0..).zip(events) {
                self.anchored(middle, y - 7 - 13 * index, "mono event", "middle", event.as_str());
            }
            return;
        }
        let narrow = if a.width < b.width { &a } else { &b };
        let has_return = TRANSITIONS.iter().any(|row| (row.from, row.to) == (to, from));
        let leads_down = a.y < b.y;
        let shift = match (has_return, leads_down) {
            (false, _) => 0,
            (true, true) => -BESIDE,
            (true, false) => BESIDE,
        };
        let x = narrow.middle_x() + shift;
        let (start, end) = match leads_down {
            true => (a.bottom() + 1, b.y - border),
            false => (a.y - 1, b.bottom() + border),
        };
        self.path(format_args!("M{x} {start} V{end}"));
        let middle = (start + end) / 2;
        let lines = i32::try_from(events.len()).unwrap_or(1);
        // Right of it others lead past.
        let is_beside = from == Phase::Swapped;
        let (at, anchor) = if shift < 0 || is_beside { (x - 8, "end") } else { (x + 8, "start") };
        for (index, event) in (0..).zip(events) {
            let y = middle + 4 - 7 * (lines - 1) + 14 * index;
            self.anchored(at, y, "mono event", anchor, event.as_str());
        }
    }

    /// Between a box of the top row and the last one, past the way back that lies between them.
    fn past(&mut self, top: &Frame, last: &Frame, leads_down: bool, events: &[Event]) {
        let (x, y, at, anchor) = match leads_down {
            true => (top.right() - PAST + 18, last.y + 14, -6, "end"),
            false => (top.right() - 8, last.y + 32, 6, "start"),
        };
        match leads_down {
            true => self.path(format_args!("M{x} {} V{y} H{}", top.bottom() + 1, last.right() + 1)),
            false => {
                self.path(format_args!("M{} {y} H{x} V{}", last.right() + 1, top.bottom() + 1));
            }
        }
        for (index, event) in (0..).zip(events) {
            let label = last.y - 22 + 14 * index;
            self.anchored(x + at, label, "mono event", anchor, event.as_str());
        }
    }

    fn legend(&mut self) {
        let x = frame(Phase::NeedsOperator).right() + 40;
        let y = LAST_ROW + 54;
        self.text(x, y, "undo", "↺");
        self.text(x + 18, y, "note", "changes the world; taken back by a step of RollingBack");
        self.line(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"10\" rx=\"3\" fill=\"none\" stroke=\"#2f855a\"/><rect x=\"{}\" y=\"{}\" width=\"10\" height=\"6\" rx=\"2\" fill=\"none\" stroke=\"#2f855a\"/>",
            x - 2,
            y + 11,
            x,
            y + 13
        ));
        self.text(x + 18, y + 20, "note", "final: no event leads out of it");
        let drawn = "drawn from the transition table by: payram-updater statechart";
        self.text(x, y + 40, "note", drawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCXML: &str = include_str!("../../statecharts/upgrade.scxml");

    fn chart() -> roxmltree::Document<'static> {
        roxmltree::Document::parse(SCXML).expect("the statechart is XML")
    }

    #[test]
    fn each_box_lists_the_steps_that_the_statechart_gives_its_state() {
        for state in chart().root_element().children().filter(roxmltree::Node::is_element) {
            let id = state.attribute("id").expect("a state has an id");
            let phase = Phase::ALL.into_iter().find(|phase| phase.chart_id() == id);
            let expected: Vec<&str> = state
                .children()
                .filter(|child| child.tag_name().name() == "step")
                .filter_map(|step| step.attribute("id"))
                .collect();
            let drawn: Vec<&str> = steps(phase.expect("a state of the code"))
                .into_iter()
                // What follows a final state is no part of the statechart.
                .filter(|(_, step)| !Step::AFTERWARDS.contains(step))
                .map(|(_, step)| step.as_str())
                .collect();
            assert_eq!(drawn, expected, "{id}");
        }
    }

    #[test]
    fn the_picture_is_xml_with_every_state_and_event_and_the_same_each_time() {
        let picture = svg();
        assert_eq!(picture, svg());
        let document = roxmltree::Document::parse(&picture).expect("the picture is XML");
        let texts: Vec<&str> = document
            .descendants()
            .filter(|n| n.has_tag_name("text"))
            .filter_map(|n| n.text())
            .collect();
        for phase in Phase::ALL {
            assert!(texts.contains(&phase.chart_id()), "{phase}");
        }
        for row in TRANSITIONS {
            assert!(texts.contains(&row.event.as_str()), "{row:?}");
        }
        let arrows = document.descendants().filter(|n| n.attribute("class") == Some("arrow"));
        assert_eq!(arrows.count(), self::arrows().len() + 1);
    }
}
