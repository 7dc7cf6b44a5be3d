"""The page that tells a study, and the tables in the papers' form."""
