//! The mappings that leadloop knows by name, as files beside this one.
//!
//! They follow the payloads that the CRMs document; what nobody outside can know, such as the names
//! of an account's stages, is left to `[sources.mapping]`.

use crate::mapping::spec::MappingSpec;

/// Each preset with its file.
pub const PRESETS: [(&str, &str); 7] = [
    ("dynamics", include_str!("presets/dynamics.toml")),
    ("generic", include_str!("presets/generic.toml")),
    ("gohighlevel", include_str!("presets/gohighlevel.toml")),
    ("hubspot", include_str!("presets/hubspot.toml")),
    ("pipedrive", include_str!("presets/pipedrive.toml")),
    ("salesforce", include_str!("presets/salesforce.toml")),
    ("zoho", include_str!("presets/zoho.toml")),
];

/// The preset of this name.
pub fn preset(name: &str) -> Option<MappingSpec> {
    let (_, file) = PRESETS.into_iter().find(|(known, _)| *known == name)?;
    // A test reads every one.
    toml::from_str(file).ok()
}

/// The names of all presets.
pub fn names() -> String {
    PRESETS.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_can_be_read_and_written_again() {
        for (name, _) in PRESETS {
            let spec = preset(name).unwrap();
            let written = toml::to_string(&spec).unwrap();
            assert_eq!(toml::from_str::<MappingSpec>(&written).unwrap(), spec, "{name}");
        }
        assert_eq!(preset("fax"), None);
    }
}
