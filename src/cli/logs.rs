//! `logs`: the log of the last job, once or as it grows. Lines of text also into a pipe;
//! with `--json` an object a line.

use std::io::{self, Write};

use serde_json::json;

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
    if !asked.follow && !asked.until_done {
        let raw = context.client.get("/upgrade/logs?format=json").await?;
        let log: LogAnswer = answers::read("/upgrade/logs", &raw)?;
        shown.lines(&log.job_id, &log.lines)?;
        return Ok(Exit::Done);
    }
    let until = if asked.until_done { Until::LastEnded } else { Until::Never };
    match follow::follow(&context.client, until, &mut shown).await {
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
