//! One backfill: the forms, and the leads of each, page by page.
//!
//! A page is taken in before the mark that says so is set: if we die between the two, the page is
//! read again, which changes nothing. Short throttles are waited out; what goes wrong otherwise
//! costs the form, whose mark stays where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::ids::{FormId, PageId};
use crate::domain::mark::{FormMark, Pass};
use crate::domain::stage::SourceName;
use crate::domain::time::UnixSeconds;
use crate::limits::{
    BACKFILL_LEADS_SHOWN_MAX, BACKFILL_PAGES_MAX, BACKFILL_TRIES_MAX, BACKFILL_WAIT_MS_MAX,
    BACKFILL_WAITS_MAX, WEBHOOK_LATE_S,
};
use crate::meta::graph::{Form, GraphQuery, LeadPage, read_form, read_forms, read_leads};
use crate::reader::backfill::{Backfiller, Counts, Wish};
use crate::reader::gate::Why;
use crate::reader::graph::Miss;
use crate::store::{LeadOutcome, StoreError};

/// A backfill that is under way.
pub(super) struct Run<'b> {
    by: &'b Backfiller,
    wish: Wish,
    seen: BTreeSet<FormId>,
}

/// Why a form was not read to its end.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Graph(#[from] Miss),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the list has no end")]
    Endless,
    #[error("there is a next page, and Meta does not say where")]
    Lost,
    #[error("the Page has no form")]
    NoForm,
}

impl<'b> Run<'b> {
    /// The one that the board tells of.
    pub(super) fn new(by: &'b Backfiller) -> Self {
        let wish = by.board.open().as_ref().map(|progress| progress.wish).unwrap_or_default();
        Self { by, wish, seen: BTreeSet::new() }
    }

    /// Reads all that is wished for.
    pub(super) async fn all(&mut self) {
        let forms = if let Some(form_id) = self.wish.form_id {
            self.find_form(form_id).await.into_iter().collect()
        } else {
            self.list_all_forms().await
        };
        let known = u64::try_from(forms.len()).unwrap_or(u64::MAX);
        self.count(|counts| counts.forms = known);
        for (token, form) in forms {
            match self.read_form(token, &form).await {
                Ok(()) => self.count(|counts| counts.forms_read += 1),
                Err(trouble) => {
                    tracing::warn!(form = %form.id, %trouble, "a form was not read to its end");
                    self.count(|counts| counts.forms_failed += 1);
                }
            }
        }
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        self.by.board.change(|progress| count(&mut progress.counts));
    }

    /// The Pages to list the forms of, each with its token; `None` for the token's own Page.
    fn pages(&self) -> Vec<(usize, Option<PageId>)> {
        let tokens = self.by.graph.tokens();
        let general = tokens.iter().position(|token| token.page_id.is_none());
        if let Some(page_id) = self.wish.page_id {
            let own = tokens.iter().position(|token| token.page_id == Some(page_id));
            return own.or(general).map(|token| (token, Some(page_id))).into_iter().collect();
        }
        let own = tokens.iter().enumerate().map(|(token, it)| (token, it.page_id));
        let listed = self.by.intake.config.reading.without_token.iter().copied();
        own.chain(general.into_iter().flat_map(|token| {
            let listed = listed.clone();
            listed.map(move |page_id| (token, Some(page_id)))
        }))
        .collect()
    }

    /// The form that is wished for, with the first token that can see it.
    async fn find_form(&self, form_id: FormId) -> Option<(usize, Arc<Form>)> {
        for token in 0..self.by.graph.tokens().len() {
            let body = self.ask(token, &GraphQuery::form(form_id)).await;
            match body.and_then(|body| read_form(&body).map_err(|_| Miss::Senseless)) {
                Ok(form) => return Some((token, self.by.graph.remember(form))),
                Err(trouble) => tracing::debug!(form = %form_id, %trouble, "not seen by a token"),
            }
        }
        tracing::warn!(form = %form_id, "no token can see the form");
        self.count(|counts| counts.forms_failed += 1);
        None
    }

    async fn list_all_forms(&mut self) -> Vec<(usize, Arc<Form>)> {
        let (pages, mut forms) = (self.pages(), Vec::new());
        if pages.is_empty() {
            tracing::warn!("no token can read the Page that is wished for");
            self.count(|counts| counts.forms_failed += 1);
        }
        for (token, page_id) in pages {
            if let Err(trouble) = self.list_forms(token, page_id, &mut forms).await {
                let page = page_id.map_or_else(|| "me".to_owned(), |id| id.to_string());
                tracing::warn!(page, %trouble, "the forms of a Page can't be listed");
                self.count(|counts| counts.forms_failed += 1);
            }
        }
        forms
    }

    async fn list_forms(
        &mut self,
        token: usize,
        page_id: Option<PageId>,
        forms: &mut Vec<(usize, Arc<Form>)>,
    ) -> Result<(), Trouble> {
        let (mut after, mut has_form) = (None, false);
        for _ in 0..BACKFILL_PAGES_MAX {
            let query = GraphQuery::forms(page_id, after.as_deref());
            let body = self.ask(token, &query).await?;
            let page = read_forms(&body).map_err(|_| Miss::Senseless)?;
            let unreadable = u64::try_from(page.unreadable).unwrap_or(u64::MAX);
            self.count(|counts| counts.forms_failed += unreadable);
            has_form |= !page.forms.is_empty() || unreadable > 0;
            for form in page.forms {
                // A form that nobody filled in costs no call.
                if !form.is_empty && self.seen.insert(form.id) {
                    forms.push((token, self.by.graph.remember(form)));
                }
            }
            after = further(page.next, after.as_deref())?;
            if after.is_none() {
                // It may be a slip in the id; zeros would look like there is nothing to read.
                let is_empty = self.wish.page_id.is_some() && !has_form;
                return if is_empty { Err(Trouble::NoForm) } else { Ok(()) };
            }
        }
        Err(Trouble::Endless)
    }

    /// Asks until there is an answer: a throttle that is over soon is waited out, and again once;
    /// trouble of Meta's for a few tries, and a denial not at all. What would take longer would
    /// keep all other forms waiting.
    async fn ask(&self, token: usize, query: &GraphQuery) -> Result<Vec<u8>, Miss> {
        let (mut tries, mut waits) = (0, 0);
        loop {
            let closed = match self.by.graph.ask(token, query).await {
                Err(Miss::Closed(closed) | Miss::Shut(closed)) => closed,
                other => return other,
            };
            let give_up = match closed.why {
                Why::Denied(_) => true,
                Why::Trouble => {
                    tries += 1;
                    tries >= BACKFILL_TRIES_MAX
                }
                Why::Budget => {
                    waits += 1;
                    let wait_ms = closed.until.millis_since(self.by.intake.clock.now());
                    waits > BACKFILL_WAITS_MAX || wait_ms > BACKFILL_WAIT_MS_MAX
                }
            };
            if give_up {
                return Err(Miss::Closed(closed));
            }
            self.by.board.change(|progress| progress.waits_until = Some(closed.until));
            self.by.intake.clock.sleep_until(closed.until).await;
            self.by.board.change(|progress| progress.waits_until = None);
        }
    }

    /// Reads the leads of a form: first the rest of a pass that was under way when we died.
    async fn read_form(&self, token: usize, form: &Form) -> Result<(), Trouble> {
        let store = &self.by.intake.store;
        let mut mark = store.form_mark(form.id).await?;
        if !self.wish.dry_run
            && let Some(pass) = mark.pass.clone()
        {
            mark = self.finish(token, form, mark, pass).await?;
        }
        let since = self.wish.since.unwrap_or_else(|| mark.since(self.now()));
        self.finish(token, form, mark, Pass::since(since)).await?;
        Ok(())
    }

    fn now(&self) -> UnixSeconds {
        self.by.intake.clock.now().seconds()
    }

    /// Reads a pass to its end, and moves the mark.
    async fn finish(
        &self,
        token: usize,
        form: &Form,
        mut mark: FormMark,
        mut pass: Pass,
    ) -> Result<FormMark, Trouble> {
        let mut began_anew = false;
        let had_mark = mark.read_until.is_some();
        for _ in 0..BACKFILL_PAGES_MAX {
            let query = GraphQuery::leads(form.id, pass.since, pass.after.as_deref());
            let page = match self.ask(token, &query).await {
                // It may be a cursor that Meta does not know any more: once from the beginning.
                Err(Miss::Senseless) if pass.after.is_some() && !began_anew => {
                    began_anew = true;
                    pass = Pass::since(pass.since);
                    continue;
                }
                asked => read_leads(&asked?).map_err(|_| Miss::Senseless)?,
            };
            self.take_in(token, form, &page, had_mark).await?;
            let created = page.leads.iter().map(|lead| lead.created_time);
            let failed = page.unreadable.iter().filter_map(|unreadable| unreadable.created_time);
            pass.add_page(created, failed);
            let next = further(page.next, pass.after.as_deref())?;
            let is_last = next.is_none();
            if is_last {
                mark = mark.after(&pass, self.now());
            } else {
                pass.after = next;
                mark.pass = Some(pass.clone());
            }
            if !self.wish.dry_run {
                // From here on this page is not read again.
                self.by.intake.store.set_form_mark(form.id, mark.clone()).await?;
            }
            if is_last {
                return Ok(mark);
            }
        }
        Err(Trouble::Endless)
    }

    async fn take_in(
        &self,
        token: usize,
        form: &Form,
        page: &LeadPage,
        had_mark: bool,
    ) -> Result<(), Trouble> {
        let own_page = self.by.graph.tokens()[token].page_id;
        let page_id = form.page_id.or(self.wish.page_id).or(own_page);
        // Without its Page nobody knows where its events go.
        let page_id = page_id.ok_or(Miss::NotFound)?;
        let leads: Vec<_> = page.leads.iter().map(|lead| (lead, page_id)).collect();
        let is_new: Vec<bool> = if self.wish.dry_run {
            let mut is_new = Vec::new();
            for lead in &page.leads {
                is_new.push(self.by.intake.store.find_lead(lead.lead_id).await?.is_none());
            }
            is_new
        } else {
            let outcomes = self.by.intake.take_in(&leads, &SourceName::backfill()).await?;
            self.by.intake.learn(&page.leads, form).await?;
            self.by.intake.set_aside(form.id, &page.unreadable).await?;
            outcomes.iter().map(|outcome| *outcome == LeadOutcome::New).collect()
        };
        let late_before = self.now() + -WEBHOOK_LATE_S;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let new = page.leads.iter().zip(&is_new).filter(|(_, is_new)| **is_new);
        let is_late = |created_time| had_mark && created_time < late_before;
        let lost = new.clone().filter(|(lead, _)| is_late(lead.created_time)).count();
        self.by.board.change(|progress| {
            let left = BACKFILL_LEADS_SHOWN_MAX.saturating_sub(progress.new_leads.len());
            progress.new_leads.extend(new.clone().map(|(lead, _)| lead.lead_id).take(left));
        });
        let new = new.count();
        self.count(|counts| {
            counts.read += number(page.leads.len());
            counts.new += number(new);
            counts.known += number(page.leads.len() - new);
            counts.lost += number(lost);
            counts.failed += number(page.unreadable.len());
        });
        Ok(())
    }
}

/// Where the next page begins, if there is one. A cursor that leads nowhere, or to the same page
/// again, is not the end of the list: nobody knows what is behind it.
fn further(next: Option<String>, after: Option<&str>) -> Result<Option<String>, Trouble> {
    match next.as_deref() {
        Some(cursor) if cursor.is_empty() || Some(cursor) == after => Err(Trouble::Lost),
        _ => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_leads_nowhere_is_not_the_end() {
        let further = |next: Option<&str>, after| further(next.map(str::to_owned), after).ok();
        assert_eq!(further(None, None), Some(None));
        assert_eq!(further(None, Some("A")), Some(None));
        assert_eq!(further(Some("A"), None), Some(Some("A".to_owned())));
        assert_eq!(further(Some("B"), Some("A")), Some(Some("B".to_owned())));
        assert_eq!(further(Some("A"), Some("A")), None);
        assert_eq!(further(Some(""), None), None);
    }
}
