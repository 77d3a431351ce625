"""Floor 3: pictures in, findings out.

Read in this order: `types`, `errors`, `settings`, `images` (bytes to an upright picture), `geometry`,
`inputs` (picture to tensor), `backend` + `backends/` (what runs a network), `decoder` + `decoders/` (what its
numbers mean), `task` + `tasks/` (what a caller may ask for), `network` (tasks that are one network, from a row
of the catalogue), `reader` and `reading` (text), `masks` and `rendering` (arrays to records, COCO), `annotate`,
`question`, `cache`, `workers`, `service` (the story of one call), `sources`, `schemas` and `routes`.
"""
