//! `history`: what happened, newest first.

use std::io::{self, Write};

use url::form_urlencoded::Serializer;

use super::answers::{self, HistoryAnswer, HistoryEvent};
use super::args::History;
use super::screen::{Screen, Tone, clean, date_time};
use super::{Context, Exit, Problem, Reading, document};

/// `history`
pub(super) async fn history(
    context: &Context,
    asked: &History,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let raw = context.client.get(&path(asked)).await?;
    match context.reading {
        Reading::Json => document(out, &raw)?,
        Reading::Person | Reading::Text => {
            let answer: HistoryAnswer = answers::read("/upgrade/history", &raw)?;
            table(out, context.screen, asked, &answer.events)?;
        }
    }
    Ok(Exit::Done)
}

fn path(asked: &History) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("limit", &asked.limit.to_string());
    if let Some(kind) = &asked.kind {
        query.append_pair("type", kind);
    }
    if let Some(status) = &asked.status {
        query.append_pair("status", status);
    }
    if let Some(since) = asked.since {
        query.append_pair("since", &since.rfc3339());
    }
    format!("/upgrade/history?{}", query.finish())
}

fn table(
    out: &mut dyn Write,
    screen: Screen,
    asked: &History,
    events: &[HistoryEvent],
) -> io::Result<()> {
    if events.is_empty() {
        let is_filtered = asked.kind.is_some() || asked.status.is_some() || asked.since.is_some();
        let said = if is_filtered { "No matching events." } else { "No events yet." };
        return writeln!(out, "{said}");
    }
    let widest = |head: &str, of: fn(&HistoryEvent) -> &str| {
        events.iter().map(|e| of(e).chars().count()).max().unwrap_or(0).max(head.len())
    };
    let kinds = widest("TYPE", |event| &event.kind);
    let statuses = widest("STATUS", |event| &event.status);
    let head =
        format!("{:<19}  {:<kinds$}  {:<statuses$}  MESSAGE", "TIME (UTC)", "TYPE", "STATUS");
    writeln!(out, "{}", screen.paint(Tone::Strong, &head))?;
    for event in events {
        let tone = match event.status.as_str() {
            "succeeded" | "validated" => Tone::Good,
            "failed" => Tone::Bad,
            "rolled_back" => Tone::Unsure,
            _ => Tone::Faint,
        };
        let status = format!("{:<statuses$}", clean(&event.status));
        writeln!(
            out,
            "{:<19}  {:<kinds$}  {}  {}",
            date_time(&event.timestamp),
            clean(&event.kind),
            screen.paint(tone, &status),
            screen.hang(19 + 2 + kinds + 2 + statuses + 2, &event.message)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_a_table_whose_messages_stay_in_their_column() {
        let event = |status: &str, message: &str| HistoryEvent {
            timestamp: "2026-01-31T12:00:00.25Z".into(),
            kind: "upgrade".into(),
            status: status.into(),
            message: message.into(),
        };
        let events = [event("succeeded", "1.9.7 serves and is well"), event("started", "begun")];
        let mut out = Vec::new();
        let asked = History { limit: 2, kind: None, status: None, since: None };
        table(&mut out, Screen { color: false, width: 60 }, &asked, &events).expect("written");
        let expected = "\
TIME (UTC)           TYPE     STATUS     MESSAGE
2026-01-31 12:00:00  upgrade  succeeded  1.9.7 serves and is
                                         well
2026-01-31 12:00:00  upgrade  started    begun
";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn what_is_asked_for_is_escaped() {
        let asked = History { kind: Some("a&b".into()), status: None, limit: 5, since: None };
        assert_eq!(path(&asked), "/upgrade/history?limit=5&type=a%26b");
    }
}
