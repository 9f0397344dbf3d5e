//! Faults that the database makes at a chosen statement: conflicts, deadlocks, lost connections, a
//! server without memory, a transaction that was idle too long.
//!
//! They are real: the server raises the error, or ends the connection.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::postgres::Postgres;
use sqlx::{Executor as _, Transaction};

use crate::limits::DB_TRIES_MAX;
use crate::store::postgres::error::Failure;
use crate::store::postgres::session::Faults;

/// What happens at a statement or at the commit.
const FAULTS: [&str; 5] = [
    "DO $$ BEGIN RAISE EXCEPTION 'a conflict' USING ERRCODE = '40001'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'a deadlock' USING ERRCODE = '40P01'; END $$",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "DO $$ BEGIN RAISE EXCEPTION 'no memory' USING ERRCODE = '53200'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'idle too long' USING ERRCODE = '25P03'; END $$",
];

/// When faults happen; never, unless a test asks for them.
#[derive(Clone, Default)]
pub struct Planned(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    is_forced: bool,
    is_weak: bool,
    /// How many statements of the transaction that is under way went well.
    done: usize,
    /// Which statement fails next, counted from 0; the commit is one.
    next: usize,
    /// How many failed in all, which decides how the next one fails.
    struck: usize,
    has_failed: bool,
}

impl Planned {
    /// Fails each statement of each transaction once, one after the other, and its commit: the
    /// transaction is tried until nothing is left that could fail.
    pub fn force(&self) {
        self.plan().is_forced = true;
    }

    /// Makes writing transactions see what others commit meanwhile, as a control.
    pub fn weaken(&self) {
        self.plan().is_weak = true;
    }

    /// How many statements failed.
    pub fn struck(&self) -> usize {
        self.plan().struck
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self) -> Option<&'static str> {
        let mut plan = self.plan();
        if !plan.is_forced || plan.done < plan.next {
            plan.done += 1;
            return None;
        }
        plan.next += 1;
        plan.struck += 1;
        plan.has_failed = true;
        Some(FAULTS[plan.struck % FAULTS.len()])
    }
}

#[async_trait]
impl Faults for Planned {
    fn begin(&self) {
        let mut plan = self.plan();
        if !plan.has_failed {
            plan.next = 0;
        }
        (plan.done, plan.has_failed) = (0, false);
    }

    fn beginning(&self, statement: &'static str) -> &'static str {
        let is_weak = self.plan().is_weak && statement.contains("SERIALIZABLE");
        if is_weak { "BEGIN ISOLATION LEVEL READ COMMITTED" } else { statement }
    }

    fn tries_max(&self) -> u32 {
        if self.is_forced() { u32::MAX } else { DB_TRIES_MAX }
    }

    fn is_forced(&self) -> bool {
        self.plan().is_forced
    }

    async fn strike(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
    ) -> Result<(), Failure> {
        if let Some(fault) = self.next_fault() {
            transaction.execute(fault).await?;
            // The connection is closed after the answer; the next statement finds out.
            transaction.execute("SELECT 1").await?;
        }
        Ok(())
    }
}
