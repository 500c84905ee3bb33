//! What came to nothing before it began: the rules said no, or a check did. Who asked for what, and why not, belongs to the
//! audit log like what was done.

use crate::{
    error::Error,
    inventory::OperationRow,
    manager::{Manager, new_operation, now_ms},
};
use vz_types::{OpKind, OpState, Reason, Subject, op::Failure};

/// Keeps a refusal. `kept`: it has a row under its number already.
pub fn keep(m: &Manager, row: &OperationRow, failure: &Failure, kept: bool) {
    if !is_told(row.kind, failure) && !kept {
        return;
    }
    let written = m.inventory.change("keeping a refusal", false, |c| c.refused(row, &cause(failure), kept));
    if let Err(e) = written {
        tracing::warn!(subject = %row.subject, op = row.kind.word(), by = row.asker, "its refusal cannot be kept: {e}");
    }
}

/// The rules said no to one that nobody has carried on with: it gets a row of its own, whatever number its client chose, so
/// that the same number can be asked for again.
pub fn by_the_rules(m: &Manager, kind: OpKind, subject: Subject, asker: String, e: &Error) {
    let failure = e.failure();
    let (Ok(id), at) = (new_operation(), now_ms()) else { return };
    let row = OperationRow {
        id,
        kind,
        subject,
        asker,
        state: OpState::Failed,
        step: String::new(),
        note: "{}".into(),
        told: "{}".into(),
        error: serde_json::to_string(&failure).ok(),
        asked: at,
        begun: None,
        ended: Some(at),
        count: 1,
    };
    keep(m, &row, &failure, false);
}

/// Nobody asked for vzd's own housekeeping; a vzd on its way out is asked again when it is back; and what has ended is on
/// record under its number.
fn is_told(kind: OpKind, failure: &Failure) -> bool {
    !kind.is_internal() && !matches!(failure.reason, Some(Reason::Quitting | Reason::HasEnded { .. }))
}

/// What makes two refusals the same: their words, whatever figures are in them.
fn cause(failure: &Failure) -> String {
    let mut words = format!("{} ", failure.code.code());
    let figure = |c: char| if c.is_ascii_digit() { '0' } else { c };
    for c in failure.message.chars().map(figure) {
        if c != '0' || !words.ends_with('0') {
            words.push(c);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use vz_types::ExitCode;

    #[test]
    fn figures_do_not_make_another_refusal_and_words_do() {
        let busy = |kind, seconds| {
            let reason = Reason::Busy { kind, operation: vz_types::OpId::new(seconds, [1; 10]), seconds };
            let message = reason.sentence(&Subject::Ct(101.try_into().unwrap()));
            cause(&Failure { code: ExitCode::Locked, message, hint: None, reason: Some(reason) })
        };
        assert_eq!(busy(OpKind::Stop, 4), busy(OpKind::Stop, 1234));
        assert_ne!(busy(OpKind::Stop, 4), busy(OpKind::Set, 4));
    }
}
