//! How far each form has been read from Meta.

use crate::domain::ids::FormId;
use crate::domain::mark::FormMark;
use crate::store::StoreError;
use crate::store::records::mark::{decode_mark, encode_mark};
use crate::store::redb::tables::Tables;
use crate::store::redb::writer::Unit;

/// See [`crate::store::Store::form_mark`].
pub(super) fn find(view: &Tables<'_>, form_id: FormId) -> Result<FormMark, StoreError> {
    let row = view.form_marks.get(form_id.get())?;
    row.map_or_else(|| Ok(FormMark::default()), |row| decode_mark(row.value()))
}

/// See [`crate::store::Store::set_form_mark`].
pub(super) fn set(unit: &mut Unit<'_>, form_id: FormId, mark: &FormMark) -> Result<(), StoreError> {
    unit.tables.form_marks.insert(form_id.get(), encode_mark(mark)?.as_slice());
    Ok(())
}

/// Reads every mark.
pub(super) fn read_all(view: &Tables<'_>) -> Result<(), StoreError> {
    for row in view.form_marks.all()? {
        decode_mark(row?.1.value())?;
    }
    Ok(())
}
