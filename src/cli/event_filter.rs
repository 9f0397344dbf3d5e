//! Which events a command is about, as options.

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};

use crate::domain::event::DeadReason;
use crate::domain::ids::{DatasetId, LeadId};

/// The names of the options, for those that can't be given beside them.
pub(super) const FILTERS: [&str; 6] =
    ["reason", "dataset", "lead_id", "code", "created_from", "created_before"];

/// Filters of events; all that are given must pass.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EventFilter {
    /// Those that are dead for this reason
    #[arg(long, value_parser = PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::name)))]
    reason: Option<String>,
    /// Those of leads of this dataset
    #[arg(long, alias = "dataset-id", value_name = "ID", value_parser = DatasetId::parse)]
    dataset: Option<DatasetId>,
    /// Those of this lead
    #[arg(long, value_name = "ID", value_parser = LeadId::parse)]
    lead_id: Option<LeadId>,
    /// Those whose last attempt Meta answered with this error code
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    code: Option<i64>,
    /// Those of leads that were created at this time or later: Unix seconds, or RFC 3339
    #[arg(long, value_name = "TIME")]
    created_from: Option<String>,
    /// Those of leads that were created before this time: Unix seconds, or RFC 3339
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
}

impl EventFilter {
    /// The filter as parameters of a query.
    pub(super) fn query(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("reason", self.reason.clone()),
            ("dataset_id", self.dataset.map(|id| id.to_string())),
            ("lead_id", self.lead_id.map(|id| id.to_string())),
            ("code", self.code.map(|code| code.to_string())),
            ("created_from", self.created_from.clone()),
            ("created_before", self.created_before.clone()),
        ]
    }

    /// The filter as fields of a body.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let given = self.query().into_iter().filter_map(|(name, text)| Some((name, text?)));
        given.map(|(name, text)| (name.to_owned(), text.into())).collect()
    }
}
