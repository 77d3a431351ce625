"""Floor 3: pictures in, findings out.

Read in this order: `types`, `errors`, `settings`, `images` (bytes to an upright picture), `geometry`,
`inputs` (picture to tensor), `backend` + `backends/` (what runs a network), `decoder` + `decoders/` (what its
numbers mean), `network` (the three together, from a row of the catalogue), `task` + `tasks/` (what a caller
may ask for), `reading` and `reader` (text), `rendering` (arrays to records, COCO), `annotate`, `cache`,
`service` (the story of one call), `schemas`, `uploads` and `routes`.
"""
