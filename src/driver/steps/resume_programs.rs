//! `resume_programs`: exactly the programs that ran are started. A container that was stopped and
//! started again has started them itself; then there is nothing left to do.

use crate::app::supervisor;
use crate::driver::context::{StepContext, done};
use crate::engine::Inspection;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::facts::Programs;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: starting the application's programs";

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    programs: &Programs,
) -> Result<Fact, Trouble> {
    if programs.running.is_empty() {
        return done();
    }
    let started = supervisor::start(cx.engine, cx.old_id(), &programs.running).await;
    if let Err(trouble) = started {
        let old = cx.inspect_present(cx.old_id(), "old").await?;
        let restarts = old["RestartCount"].as_i64().unwrap_or_default();
        if Inspection(&old).runs_steadily() && restarts == 0 {
            return Err(trouble);
        }
        // It ends again and again: its gate says so, with its last lines.
        let which = cx.old();
        cx.say(&format!("the {which} does not stay up; its programs are not started")).await;
    }
    done()
}
