//! The kinds of alarms, and sets of them. Their names are promised to receivers.

/// Declares the kinds of alarms with their stable names.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal;)*) => {
        /// What kind of thing an alarm is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AlarmKind {
            $($(#[$doc])* $kind,)*
        }

        impl AlarmKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The kind's stable name, the `type` of its messages.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// Events became dead letters.
    EventsDead = "events.dead";
    /// Events will be too old within a day and are not delivered.
    EventsDeadlineNear = "events.deadline_near";
    /// A dataset is not sent to until somebody mends something.
    DatasetPaused = "dataset.paused";
    /// A dataset that was paused works again.
    DatasetResumed = "dataset.resumed";
    /// No delivery of Meta's webhook has come for as long as is configured.
    WebhookSilent = "webhook.silent";
    /// Deliveries come again.
    WebhookResumed = "webhook.resumed";
    /// Pieces of a webhook could not be read.
    QuarantineAdded = "quarantine.added";
    /// Reports of a CRM that no mapping fits could not be kept.
    ReportsNotKept = "reports.not_kept";
    /// Stages in a CRM's own webhook were refused by the rules.
    ReportsRefused = "reports.refused";
    /// Reports of a CRM fit no mapping and wait for it to be mended.
    ReportsKept = "reports.kept";
    /// Reports that waited for their mapping are too old now.
    ReportsExpired = "reports.expired";
}

impl AlarmKind {
    /// Finds a kind by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmKinds(u64);

impl AlarmKinds {
    /// No kind at all.
    pub const NONE: Self = Self(0);

    /// Whether the kind is one of them.
    pub const fn contains(self, kind: AlarmKind) -> bool {
        self.0 & (1 << kind as u64) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a number, a bit for each kind.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of such a number.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl FromIterator<AlarmKind> for AlarmKinds {
    fn from_iter<I: IntoIterator<Item = AlarmKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | 1 << kind as u64))
    }
}
