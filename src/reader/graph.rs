//! The Graph API with the tokens that there are: each question goes through the gate of its token,
//! and forms are remembered, so that a lead costs one call and not two.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Random};
use crate::config::PageToken;
use crate::domain::ids::{FormId, LeadId, PageId};
use crate::domain::time::Timestamp;
use crate::limits::{READ_FORMS_KEPT_MAX, READ_FORMS_KEPT_MS};
use crate::meta::graph::{Form, GraphLead, GraphQuery, read_form, read_lead};
use crate::reader::gate::{Closed, Gate, Why};
use crate::reader::source::GraphSource;
use crate::reader::verdict::{Trouble, judge};
use crate::telemetry::Metrics;

/// Reads with the tokens of the settings.
pub struct Graph {
    source: Arc<dyn GraphSource>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    tokens: Vec<PageToken>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gates: Vec<Gate>,
    forms: BTreeMap<FormId, (Timestamp, Arc<Form>)>,
}

/// Why something could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// It does not exist, may not be seen, or can't be read yet.
    #[error("Meta does not show it")]
    NotFound,
    /// The token can't be used for a while; nobody knows whether it exists.
    #[error("the token can't be used at the moment")]
    Closed(Closed),
    /// The answer to this question is why the token can't be used for a while: trouble or denial.
    #[error("Meta has trouble with it, or refuses the token")]
    Shut(Closed),
    /// The question or the answer makes no sense.
    #[error("Meta refuses the question, or its answer makes no sense")]
    Senseless,
}

/// A lead, its Page and its form.
#[derive(Clone, Debug)]
pub struct FoundLead {
    /// The lead.
    pub lead: GraphLead,
    /// Its Page.
    pub page_id: PageId,
    /// Its form, if that can be read.
    pub form: Option<Arc<Form>>,
}

impl Graph {
    /// A reader with these tokens.
    pub fn new(
        source: Arc<dyn GraphSource>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        tokens: Vec<PageToken>,
    ) -> Self {
        let gates = vec![Gate::default(); tokens.len()];
        let state = Mutex::new(State { gates, forms: BTreeMap::new() });
        Self { source, clock, random, metrics, tokens, state }
    }

    /// The tokens; a token is named by its place among them.
    pub fn tokens(&self) -> &[PageToken] {
        &self.tokens
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks with a token, unless its gate is closed.
    pub async fn ask(&self, token: usize, query: &GraphQuery) -> Result<Vec<u8>, Miss> {
        let asked_at = self.clock.now();
        if let Some(closed) = self.state().gates[token].closed(asked_at) {
            return Err(Miss::Closed(closed));
        }
        let answer = self.source.ask(&self.tokens[token].token, query).await;
        let used_percent = answer.as_ref().ok().and_then(|answer| answer.used_percent);
        let read = judge(answer);
        let now = self.clock.now();
        let closed = {
            let gate = &mut self.state().gates[token];
            let (trouble, random) = (read.as_ref().err().copied(), self.random.next_u64());
            gate.note(trouble, used_percent, (asked_at, now), random);
            gate.closed(now)
        };
        self.metrics.graph_read(query.what, outcome(&read));
        if let Some(closed) = closed {
            self.tell(token, query, closed);
        }
        read.map_err(|trouble| match trouble {
            Trouble::NotFound => Miss::NotFound,
            Trouble::Refused => Miss::Senseless,
            Trouble::Throttled { .. } => closed.map_or(Miss::NotFound, Miss::Closed),
            Trouble::Denied(_) | Trouble::Passing { .. } => {
                closed.map_or(Miss::NotFound, Miss::Shut)
            }
        })
    }

    /// Says why a token is not used for a while.
    fn tell(&self, token: usize, query: &GraphQuery, closed: Closed) {
        let page = self.tokens[token].page_id;
        let page = page.map_or_else(|| "all".to_owned(), |page_id| page_id.to_string());
        let wait_s = closed.until.millis_since(self.clock.now()) / 1_000;
        match closed.why {
            Why::Denied(reason) => tracing::error!(
                page,
                reason = reason.name(),
                asked_for = query.what,
                wait_s,
                "leads can't be read: the Page's token is refused"
            ),
            Why::Budget => tracing::warn!(page, wait_s, "reading leads rests: too many calls"),
            Why::Trouble => tracing::warn!(page, wait_s, "reading leads waits: Meta has trouble"),
        }
    }

    /// A form, remembered or asked for.
    pub async fn form(&self, token: usize, form_id: FormId) -> Result<Arc<Form>, Miss> {
        let now = self.clock.now();
        let known = self.state().forms.get(&form_id).cloned();
        if let Some((read_at, form)) = known
            && now.millis_since(read_at) < READ_FORMS_KEPT_MS
        {
            return Ok(form);
        }
        let body = self.ask(token, &GraphQuery::form(form_id)).await?;
        let form = read_form(&body).map_err(|error| senseless(&error))?;
        Ok(self.remember(form))
    }

    /// Remembers a form that was read.
    pub fn remember(&self, form: Form) -> Arc<Form> {
        let (now, form) = (self.clock.now(), Arc::new(form));
        let mut state = self.state();
        if state.forms.len() >= READ_FORMS_KEPT_MAX {
            state.forms.clear();
        }
        state.forms.insert(form.id, (now, form.clone()));
        form
    }

    /// Whether any token may show the leads of a Page.
    pub fn can_read(&self, page_id: Option<PageId>) -> bool {
        self.tokens_for(page_id).next().is_some()
    }

    /// The tokens that may show the leads of a Page: its own, or else the general one; of a Page
    /// that is not known, each.
    fn tokens_for(&self, page_id: Option<PageId>) -> impl Iterator<Item = usize> {
        let is_own = |token: &PageToken| token.page_id == page_id;
        let own = page_id.is_some() && self.tokens.iter().any(is_own);
        let serves = move |token: &PageToken| match page_id {
            None => true,
            Some(_) if own => token.page_id == page_id,
            Some(_) => token.page_id.is_none(),
        };
        let tokens = self.tokens.iter().enumerate();
        tokens.filter(move |(_, token)| serves(token)).map(|(token, _)| token)
    }

    /// A lead, asked for with the token of its Page, or with one after the other if that is not
    /// known.
    ///
    /// # Errors
    /// [`Miss::Closed`] if a token that could not be used might have found it, [`Miss::Shut`] if
    /// asking for it is why. A token that Meta denies may be closed for ever: it does not count
    /// where another one was answered.
    pub async fn find_lead(
        &self,
        lead_id: LeadId,
        page_id: Option<PageId>,
    ) -> Result<FoundLead, Miss> {
        let (mut misses, mut is_answered) = (Vec::new(), false);
        for token in self.tokens_for(page_id) {
            match self.find_lead_with(token, lead_id).await {
                Ok(found) => return Ok(found),
                Err(Miss::NotFound) => is_answered = true,
                Err(miss) => misses.push(miss),
            }
        }
        let is_shut = misses.iter().any(|miss| matches!(miss, Miss::Shut(_)));
        let closed = misses.into_iter().filter_map(|miss| match miss {
            Miss::Closed(closed) | Miss::Shut(closed) => Some(closed),
            Miss::NotFound | Miss::Senseless => None,
        });
        let counts = |closed: &Closed| !(is_answered && matches!(closed.why, Why::Denied(_)));
        // What is closed is asked again as soon as one token can be used.
        let first = closed.filter(counts).min_by_key(|closed| closed.until);
        Err(match first {
            Some(closed) if is_shut => Miss::Shut(closed),
            Some(closed) => Miss::Closed(closed),
            None => Miss::NotFound,
        })
    }

    async fn find_lead_with(&self, token: usize, lead_id: LeadId) -> Result<FoundLead, Miss> {
        let body = self.ask(token, &GraphQuery::lead(lead_id)).await?;
        let lead = read_lead(&body).map_err(|error| senseless(&error))?;
        if lead.lead_id != lead_id {
            tracing::error!(%lead_id, "the Graph API answered with another lead");
            return Err(Miss::Senseless);
        }
        let form = match lead.form_id {
            None => None,
            Some(form_id) => match self.form(token, form_id).await {
                Ok(form) => Some(form),
                Err(miss @ (Miss::Closed(_) | Miss::Shut(_))) => return Err(miss),
                Err(Miss::NotFound | Miss::Senseless) => None,
            },
        };
        let page_id = form.as_ref().and_then(|form| form.page_id);
        // Without its Page nobody knows where its events go.
        let page_id = page_id.or(self.tokens[token].page_id).ok_or(Miss::NotFound)?;
        Ok(FoundLead { lead, page_id, form })
    }
}

fn senseless(error: &crate::meta::graph::Unreadable) -> Miss {
    tracing::error!(%error, "an answer of the Graph API can't be read");
    Miss::Senseless
}

const fn outcome(read: &Result<Vec<u8>, Trouble>) -> &'static str {
    match read {
        Ok(_) => "read",
        Err(Trouble::NotFound) => "not_found",
        Err(Trouble::Throttled { .. }) => "throttled",
        Err(Trouble::Denied(_)) => "denied",
        Err(Trouble::Passing { .. }) => "trouble",
        Err(Trouble::Refused) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{MockClock, SeededRandom};
    use crate::delivery::verdict::NoAnswer;
    use crate::limits::READ_DENIED_WAIT_MS;
    use crate::reader::fixtures::NOW;
    use crate::reader::source::GraphAnswer;
    use async_trait::async_trait;
    use secrecy::{ExposeSecret, SecretString};

    /// Meta as each token sees it: `denied`, `busy`, or without the lead.
    struct AsTold;

    #[async_trait]
    impl GraphSource for AsTold {
        async fn ask(&self, token: &SecretString, _: &GraphQuery) -> Result<GraphAnswer, NoAnswer> {
            let (http_status, body) = match token.expose_secret() {
                "denied" => (401, r#"{"error":{"message":"no","code":190}}"#),
                "busy" => (503, ""),
                _ => (404, ""),
            };
            Ok(GraphAnswer { http_status, body: body.into(), ..GraphAnswer::default() })
        }
    }

    /// How the search for a lead ends that no token shows: at first, and a moment later.
    async fn search(tokens: &[&str]) -> [Miss; 2] {
        let (clock, random) = (MockClock::at(NOW), SeededRandom::new(1));
        let token = |(page, token): (u64, &&str)| PageToken {
            page_id: PageId::from_u64(page),
            token: (*token).into(),
        };
        let tokens = (300..).zip(tokens).map(token).collect();
        let metrics = Arc::new(Metrics::default());
        let graph =
            Graph::new(Arc::new(AsTold), Arc::new(clock), Arc::new(random), metrics, tokens);
        let lead_id = LeadId::from_u64(1_234_567_890_123_456).unwrap();
        let first = graph.find_lead(lead_id, None).await.unwrap_err();
        [first, graph.find_lead(lead_id, None).await.unwrap_err()]
    }

    #[tokio::test]
    async fn a_token_that_is_denied_holds_up_no_search_that_another_token_answers() {
        assert_eq!(search(&["denied", "good"]).await, [Miss::NotFound; 2]);
        assert_eq!(search(&["good", "denied"]).await, [Miss::NotFound; 2]);
        let [first, then] = search(&["denied"]).await;
        let Miss::Shut(closed) = first else { panic!("{first:?}") };
        assert_eq!(closed.until, NOW.plus_millis(READ_DENIED_WAIT_MS.cast_signed()));
        assert_eq!(then, Miss::Closed(closed), "nobody has answered");
        let [_, then] = search(&["busy", "good", "denied"]).await;
        let Miss::Closed(closed) = then else { panic!("{then:?}") };
        assert_eq!(closed.why, Why::Trouble, "trouble passes, and the lead may be there then");
    }
}
