//! What CRMs report in a run: stages of leads, which they name in every way there is.

use axum::http::Method;
use rand::RngExt;
use serde_json::{Value, json};

use crate::domain::ids::{EventId, LeadId};
use crate::domain::time::Timestamp;
use crate::simulation::input::lead_id;
use crate::simulation::ledger::Pages;
use crate::simulation::meta::CURSED;
use crate::simulation::workload::{DAY, SECOND, Workload, pick};
use crate::simulation::world::World;

/// A report, and the lead that it can only mean, if there is one.
struct Report {
    update: Value,
    meant: Option<LeadId>,
}

impl Workload {
    pub(super) async fn report_stages(&mut self, world: &mut World) {
        let count = [1, 1, 3, 10][self.random.random_range(0..4)];
        let reports: Vec<Report> = (0..count).map(|_| self.some_report(world.now())).collect();
        let (updates, meant): (Vec<_>, Vec<_>) =
            reports.into_iter().map(|Report { update, meant }| (update, meant)).unzip();
        if let ([update], [meant]) = (&updates[..], &meant[..]) {
            let (path, meant) = ("/v1/stage-updates", *meant);
            world
                .api(Method::POST, path, Some(update.clone()), move |pages, status, answer| {
                    if status.is_success() {
                        answered(pages, &answer, meant);
                    }
                })
                .await;
        } else {
            let path = "/v1/stage-updates/batch";
            world
                .api(Method::POST, path, Some(json!({"updates": updates})), move |pages, _, all| {
                    let results = all["results"].as_array().into_iter().flatten().zip(meant);
                    let good = |(result, _): &(&Value, _)| result["status"].as_u64() < Some(300);
                    results.filter(good).for_each(|(result, meant)| answered(pages, result, meant));
                })
                .await;
        }
    }

    /// Links a CRM's id of a record with its lead.
    pub(super) async fn link(&mut self, world: &mut World) {
        let number = self.some_number();
        let source = ["crm", "minutes", "strict"][self.naming.random_range(0..3)];
        let path = format!("/v1/leads/{}/crm-ids/{source}/r{number}", lead_id(number));
        world.api(Method::PUT, &path, None, |_, _, _| {}).await;
    }

    /// The number of a lead: a late one mostly, or one that nobody has told of.
    fn some_number(&mut self) -> u64 {
        if self.leads.is_empty() || self.random.random_bool(0.1) {
            self.next_number += 1;
            self.awaited.push(self.next_number);
            return self.next_number;
        }
        let last = self.leads.len() - 1;
        self.leads[last - self.random.random_range(0..=last.min(20))].number
    }

    fn some_report(&mut self, now: Timestamp) -> Report {
        let number = self.some_number();
        let is_cursed = self.mood.curses && self.random.random_bool(0.1);
        let stages = ["qualified", "proposal", "won", "lost", "initial_lead"];
        let stage = stages[self.random.random_range(0..stages.len())];
        let stage = if is_cursed { CURSED } else { stage };
        let mut update = json!({"stage": stage});
        let meant = self.name_lead(&mut update, number);
        let now_s = now.seconds().get();
        let created_s = self.leads.iter().find(|lead| lead.number == number);
        let created_s = created_s.map_or(now_s, |lead| lead.created_s);
        let time = match pick(&mut self.random, &[12, 12, 2, 2, 2, 2, 2, 1]) {
            0 => None,
            1 => Some(now_s.min(created_s + self.random.random_range(1..600))),
            2 => Some(created_s - self.random.random_range(1..90)),
            3 => Some(created_s),
            4 => Some(now_s + self.random.random_range(1..90)),
            5 => Some(now_s + 3_600),
            6 => Some(now_s * 1_000),
            _ => Some(now_s - self.random.random_range(6 * DAY / SECOND..8 * DAY / SECOND)),
        };
        if let Some(time) = time {
            update["event_time"] = json!(time);
        }
        if self.random.random_bool(0.3) {
            update["source"] = json!(["minutes", "strict"][self.random.random_range(0..2)]);
        }
        if self.random.random_bool(0.2) {
            update["idempotency_key"] = json!(format!("k{}", self.random.random_range(0..6)));
        }
        Report { update, meant }
    }

    /// Names the lead of an update by some of what can name it; answers the lead if no other fits.
    /// Each has a record and an address of its own, and an address that it shares with others.
    fn name_lead(&mut self, update: &mut Value, number: u64) -> Option<LeadId> {
        let others = self.mood.others;
        let ways = [8, others, others, others, others, others, others.min(1), others.min(1)];
        let way = pick(&mut self.naming, &ways);
        if [0, 1, 2, 6].contains(&way) {
            update["lead_id"] = json!(lead_id(number).to_string());
        }
        if [1, 3, 5].contains(&way) {
            update["crm_id"] = json!(format!("r{number}"));
        }
        if [2, 4, 5].contains(&way) {
            update["customer"] = json!({"em": format!("p{number}@example.com")});
        }
        if [6, 7].contains(&way) {
            update["customer"] = json!({"em": format!("family{}@example.com", number % 4)});
        }
        (way != 7).then(|| lead_id(number))
    }
}

/// Notes what a CRM was answered.
fn answered(pages: &mut Pages, answer: &Value, meant: Option<LeadId>) {
    let event_id = answer["event_id"].as_str().and_then(|id| EventId::parse(id).ok());
    let Some(event_id) = event_id else { return };
    pages.answer_event(event_id, meant);
    let is_matched = matches!(answer["matched_by"].as_str(), Some("crm_id" | "email"));
    pages.tally.matched += u64::from(is_matched);
    if let (Some(lead_id), Some(meant)) = (answer["lead_id"].as_str(), meant) {
        let is_meant = lead_id == meant.to_string();
        pages.must(is_meant, || format!("{event_id} is of {lead_id}, and {meant} was meant"));
    }
}
