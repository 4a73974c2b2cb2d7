//! `verify_old`: the old version passes the same gate, or it is not rolled back to.

use crate::driver::context::StepContext;
use crate::driver::effects::gate::Expected;
use crate::driver::effects::second_server::Noted;
use crate::error::Trouble;
use crate::machine::Fact;
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Going back: waiting until the old version is healthy";

/// The old version passes the same gate, or it is not rolled back to. What was done to it
/// late, meanwhile, is undone, once: a second stop is a person's.
pub(in crate::driver) async fn act(cx: &StepContext<'_>) -> Result<Fact, Trouble> {
    cx.must_be_alone(cx.old(), Noted::SinceAsked).await?;
    cx.start_old_again().await?;
    let hop = cx.hop;
    let habits = cx.programs.and_then(|programs| programs.habits.as_deref());
    let expected = Expected { version: hop.from.as_deref(), rules: &hop.from_rules, habits };
    let verdict = cx.pass_gate(cx.old(), &expected).await;
    if let Err(Trouble::Failed(_)) = &verdict {
        cx.journal_last_lines(cx.old()).await;
    }
    if let Err(Trouble::Failed(failure)) = &verdict
        && failure.code == FailureCode::DatabaseDamaged
    {
        // It was stopped for that, and not from outside.
        return verdict.map(Fact::Verdict);
    }
    let was_down = match cx.put_back().await {
        Ok(was_down) => was_down,
        Err(trouble) if verdict.is_ok() => return Err(trouble),
        Err(trouble) => {
            cx.say(&format!("{} is not as it was: {trouble}", cx.old())).await;
            false
        }
    };
    let verdict = match was_down {
        true => cx.pass_gate(cx.old(), &expected).await,
        false => verdict,
    };
    verdict.map(Fact::Verdict)
}
