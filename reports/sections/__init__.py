"""Sections: one file each, which declares `SECTION`."""
