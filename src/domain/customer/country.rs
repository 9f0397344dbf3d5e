//! Countries by their codes, and the states of the one that Meta has a rule for.
//!
//! Names of countries are not translated: they come in every language.

/// Every code that ISO 3166-1 alpha-2 assigns.
const ASSIGNED: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE \
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM \
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC \
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA \
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// A country by its code of ISO 3166-1 alpha-2, such as `DE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country(&'static str);

impl Country {
    /// Finds a country by its code, in large or small letters.
    pub fn parse(code: &str) -> Option<Self> {
        let assigned = ASSIGNED.split_whitespace();
        assigned.into_iter().find(|known| known.eq_ignore_ascii_case(code)).map(Self)
    }

    /// The code, in large letters.
    pub const fn code(self) -> &'static str {
        self.0
    }
}

/// States, districts and territories of the United States: code and name, as they are hashed.
const US_STATES: [(&str, &str); 59] = [
    ("aa", "armedforcesamericas"),
    ("ae", "armedforceseurope"),
    ("ak", "alaska"),
    ("al", "alabama"),
    ("ap", "armedforcespacific"),
    ("ar", "arkansas"),
    ("as", "americansamoa"),
    ("az", "arizona"),
    ("ca", "california"),
    ("co", "colorado"),
    ("ct", "connecticut"),
    ("dc", "districtofcolumbia"),
    ("de", "delaware"),
    ("fl", "florida"),
    ("ga", "georgia"),
    ("gu", "guam"),
    ("hi", "hawaii"),
    ("ia", "iowa"),
    ("id", "idaho"),
    ("il", "illinois"),
    ("in", "indiana"),
    ("ks", "kansas"),
    ("ky", "kentucky"),
    ("la", "louisiana"),
    ("ma", "massachusetts"),
    ("md", "maryland"),
    ("me", "maine"),
    ("mi", "michigan"),
    ("mn", "minnesota"),
    ("mo", "missouri"),
    ("mp", "northernmarianaislands"),
    ("ms", "mississippi"),
    ("mt", "montana"),
    ("nc", "northcarolina"),
    ("nd", "northdakota"),
    ("ne", "nebraska"),
    ("nh", "newhampshire"),
    ("nj", "newjersey"),
    ("nm", "newmexico"),
    ("nv", "nevada"),
    ("ny", "newyork"),
    ("oh", "ohio"),
    ("ok", "oklahoma"),
    ("or", "oregon"),
    ("pa", "pennsylvania"),
    ("pr", "puertorico"),
    ("ri", "rhodeisland"),
    ("sc", "southcarolina"),
    ("sd", "southdakota"),
    ("tn", "tennessee"),
    ("tx", "texas"),
    ("ut", "utah"),
    ("va", "virginia"),
    ("vi", "virginislands"),
    ("vt", "vermont"),
    ("wa", "washington"),
    ("wi", "wisconsin"),
    ("wv", "westvirginia"),
    ("wy", "wyoming"),
];

/// The code of a state of the United States, from its code or its name without blanks.
pub(super) fn us_state(text: &str) -> Option<&'static str> {
    let found = US_STATES.into_iter().find(|(code, name)| *code == text || *name == text);
    found.map(|(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_assigned_ones() {
        assert_eq!(ASSIGNED.split_whitespace().count(), 249);
        assert!(ASSIGNED.split_whitespace().is_sorted());
        assert_eq!(Country::parse("de").map(Country::code), Some("DE"));
        for wrong in ["", "D", "DEU", "UK", "XX", "ZZ", "DE ", "Germany", "EU"] {
            assert_eq!(Country::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_is_found_by_code_and_by_name() {
        for (code, name) in US_STATES {
            assert_eq!((us_state(code), us_state(name)), (Some(code), Some(code)));
        }
        assert!(US_STATES.is_sorted());
        assert_eq!(us_state("bavaria"), None);
    }
}
