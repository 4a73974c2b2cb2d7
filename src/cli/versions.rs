//! `versions`: what can be gone to from here, by which way, and what stands in it.

use std::io::{self, Write};

use serde::Deserialize;

use super::answers;
use super::recover::sentence;
use super::screen::{Screen, Tone, clean};
use super::{Context, Exit, Problem, Reading, document};

/// `GET /versions`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Versions {
    current_version: Option<String>,
    latest_version: String,
    versions: Vec<Offer>,
    left_out: usize,
    gates: Vec<Gate>,
    failure_code: String,
    message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Offer {
    version: String,
    dashboard: bool,
    message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Gate {
    version: String,
    kind: String,
    reason: Option<String>,
    docs: Option<String>,
}

/// `versions`; exit 1 when it can't be told.
pub(super) async fn versions(context: &Context, out: &mut dyn Write) -> Result<Exit, Problem> {
    let raw = context.client.look("/versions").await?;
    let all: Versions = answers::read("/versions", &raw)?;
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => show(out, context.screen, &all)?,
    }
    Ok(if all.failure_code.is_empty() { Exit::Done } else { Exit::Failed })
}

fn show(out: &mut dyn Write, screen: Screen, all: &Versions) -> io::Result<()> {
    if !all.failure_code.is_empty() {
        writeln!(out, "{}", screen.hang(0, &sentence(&all.message)))?;
        return writeln!(out, "  Code: {}", clean(&all.failure_code));
    }
    let current = all.current_version.as_deref().unwrap_or_default();
    let latest = match all.latest_version.as_str() {
        "" => "the policy names no latest version".to_owned(),
        latest => format!("the policy's latest is {latest}"),
    };
    writeln!(out, "{} serves; {}.", clean(current), clean(&latest))?;
    let room = all.versions.iter().map(|one| one.version.chars().count()).max().unwrap_or(0);
    for one in &all.versions {
        let mark = match one.dashboard {
            true => screen.paint(Tone::Good, "✔"),
            false => screen.paint(Tone::Unsure, "!"),
        };
        let text = screen.hang(room + 6, &one.message);
        writeln!(out, "  {mark} {:<room$}  {text}", clean(&one.version))?;
    }
    if all.left_out > 0 {
        writeln!(out, "  and {} older ones", all.left_out)?;
    }
    for gate in &all.gates {
        let must = match gate.kind.as_str() {
            "stopPoint" => "must be passed by hand",
            _ => "must be passed through, which an upgrade does by itself",
        };
        let says = gate.reason.as_ref().map(|reason| format!(". The policy says: {reason:?}"));
        let docs = gate.docs.as_ref().map(|docs| format!(" {docs}")).unwrap_or_default();
        let text = format!("{} {must}{}{docs}", gate.version, says.unwrap_or_default());
        writeln!(out, "{}", screen.hang(2, &text))?;
    }
    if all.versions.is_empty() {
        return writeln!(out, "{}", screen.hang(0, &sentence(&all.message)));
    }
    writeln!(out, "\nSee what an upgrade would do: payram-updater dry-run --to VERSION")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_a_line_with_its_way_and_a_gate_is_called_what_it_is() {
        let offer = |version: &str, dashboard, message: &str| Offer {
            version: version.to_owned(),
            dashboard,
            message: message.to_owned(),
        };
        let all = Versions {
            current_version: Some("1.9.6".to_owned()),
            latest_version: "3.3.0".to_owned(),
            versions: vec![
                offer("3.3.0", true, "in 3 hops, through 1.9.7, 2.0.0"),
                offer("1.9.7", false, "1.9.7 failed here"),
            ],
            gates: vec![Gate {
                version: "2.0.0".to_owned(),
                kind: "breakpoint".to_owned(),
                reason: Some("keys move".to_owned()),
                docs: None,
            }],
            ..Versions::default()
        };
        let mut out = Vec::new();
        show(&mut out, Screen { color: false, width: 80 }, &all).expect("written");
        let expected = "\
1.9.6 serves; the policy's latest is 3.3.0.
  ✔ 3.3.0  in 3 hops, through 1.9.7, 2.0.0
  ! 1.9.7  1.9.7 failed here
2.0.0 must be passed through, which an upgrade does by itself. The policy
  says: \"keys move\"

See what an upgrade would do: payram-updater dry-run --to VERSION
";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
