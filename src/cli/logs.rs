//! `logs`: the log of the last job, once or as it grows. Lines of text also into a pipe;
//! with `--json` an object a line.

use std::io::{self, Write};

use serde_json::json;
use url::form_urlencoded::Serializer;

use super::answers::{self, LogAnswer, LogLine};
use super::args::Logs;
use super::follow::{self, Observer, Snapshot, Until, Watched};
use super::progress::{farewell, notice_beside, plain_line, terminal_line};
use super::screen::{Screen, Tone, clean};
use super::{Context, Exit, Problem, Reading, object_line};

/// `logs`
pub(super) async fn logs(
    context: &Context,
    asked: &Logs,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let mut shown = Shown { out, reading: context.reading, screen: context.screen, job: None };
    let is_followed = asked.follow || asked.until_done;
    let mut after = 0;
    if !is_followed || asked.lines.is_some() || asked.since.is_some() {
        let raw = context.client.get(&path(asked)).await?;
        let log: LogAnswer = answers::read("/upgrade/logs", &raw)?;
        shown.lines(&log.job_id, &log.lines)?;
        if !is_followed {
            return Ok(Exit::Done);
        }
        // What was before these lines is not wanted either.
        let newest = log.lines.last().map(|line| line.seq);
        after = match newest {
            Some(newest) => newest,
            None => newest_of_all(context).await?,
        };
    }
    let until = if asked.until_done { Until::LastEnded } else { Until::Never };
    match follow::follow_after(&context.client, until, after, &mut shown).await {
        Ok(Watched::Ended(ended)) => Ok(ended.job.exit()),
        // Who only reads along may stop at any time; who waits for the end did not see it.
        Ok(Watched::Interrupted) if !asked.until_done => Ok(Exit::Done),
        Ok(Watched::Interrupted) => Ok(left(&shown, Exit::Interrupted)),
        Err(Problem::Output(error))
            if error.kind() == io::ErrorKind::BrokenPipe && asked.until_done =>
        {
            Ok(left(&shown, Exit::OutputClosed))
        }
        Err(problem) => Err(problem),
    }
}

/// The newest line of the last job, whatever is asked for.
async fn newest_of_all(context: &Context) -> Result<i64, Problem> {
    let raw = context.client.get("/upgrade/logs?format=json&last=1").await?;
    let log: LogAnswer = answers::read("/upgrade/logs", &raw)?;
    Ok(log.lines.last().map_or(0, |line| line.seq))
}

fn path(asked: &Logs) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("format", "json");
    if let Some(lines) = asked.lines {
        query.append_pair("last", &lines.to_string());
    }
    if let Some(since) = asked.since {
        query.append_pair("since", &since.rfc3339());
    }
    let query = query.finish();
    match &asked.job {
        None => format!("/upgrade/logs?{query}"),
        // Whatever is typed stays one part of the path.
        Some(job) => {
            let job: String = Serializer::new(String::new()).append_key_only(job).finish();
            format!("/upgrade/jobs/{job}/logs?{query}")
        }
    }
}

fn left(shown: &Shown<'_>, exit: Exit) -> Exit {
    notice_beside(&farewell(exit, shown.job.as_deref().unwrap_or("the last job")));
    exit
}

/// Log lines as they come.
struct Shown<'a> {
    out: &'a mut dyn Write,
    reading: Reading,
    screen: Screen,
    job: Option<String>,
}

impl Observer for Shown<'_> {
    fn lines(&mut self, job: &str, lines: &[LogLine]) -> io::Result<()> {
        let is_next = self.job.as_deref().is_some_and(|before| before != job);
        if is_next && self.reading.is_person() {
            let head = format!("── {} ──", clean(job));
            writeln!(self.out, "{}", self.screen.paint(Tone::Faint, &head))?;
        }
        self.job = Some(job.to_owned());
        for line in lines {
            match self.reading {
                Reading::Person => {
                    writeln!(self.out, "{}", terminal_line(self.screen, line))?;
                }
                Reading::Text => writeln!(self.out, "{}", plain_line(line))?,
                Reading::Json => {
                    let (seq, at, text) = (line.seq, &line.at, &line.text);
                    let value = json!({"jobId": job, "seq": seq, "at": at, "text": text});
                    object_line(self.out, &value)?;
                }
            }
        }
        self.out.flush()
    }

    fn state(&mut self, _now: &Snapshot) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, sentence: &str) -> io::Result<()> {
        notice_beside(sentence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn shown(reading: Reading) -> String {
        let mut out = Vec::new();
        let screen = Screen { color: false, width: 80 };
        let mut shown = Shown { out: &mut out, reading, screen, job: None };
        let line =
            |seq, text: &str| LogLine { seq, at: "2026-01-31T12:00:00Z".into(), text: text.into() };
        shown.lines("job-1", &[line(1, "one")]).expect("written");
        shown.lines("job-2", &[line(7, "two")]).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_asked_for_is_a_path_and_a_query() {
        let asked = Logs { lines: Some(5), ..Logs::default() };
        assert_eq!(path(&asked), "/upgrade/logs?format=json&last=5");
        let since = Some(Timestamp::from_millis(0));
        let asked = Logs { job: Some("a/b".into()), since, ..Logs::default() };
        let expected = "/upgrade/jobs/a%2Fb/logs?format=json&since=1970-01-01T00%3A00%3A00.000Z";
        assert_eq!(path(&asked), expected);
    }

    #[test]
    fn a_person_sees_where_the_next_job_begins() {
        assert_eq!(shown(Reading::Person), "12:00:00 one\n── job-2 ──\n12:00:00 two\n");
    }

    #[test]
    fn a_pipe_gets_lines_and_a_program_objects() {
        assert_eq!(shown(Reading::Text), "2026-01-31T12:00:00Z one\n2026-01-31T12:00:00Z two\n");
        let text = shown(Reading::Json);
        let last = text.lines().last().expect("two lines");
        assert_eq!(last, r#"{"jobId":"job-2","seq":7,"at":"2026-01-31T12:00:00Z","text":"two"}"#);
    }
}
