"""Tasks, photos and captions.

description       what describes a task: sentences, weights, files, photos
ahead             photos read, decoded and prepared in threads, before they are asked for
encode            everything a model is asked for in batches, with and without adapters
photo_store       numbers of photos by their content, in one file of the user cache
embeddings        embeddings of photos without and with an adapter, computed once
features          frozen outputs, computed once, cached by content; mirrored photos
caption_file      captions.jsonl and the formats of others
caption_text      prompts, cleaned answers, which captions are kept
caption_writer    captions written by a captioner or taken from a file
caption_cost      what captions will cost, before a model is fetched or loaded
caption_target    the file that captions are added to
text_limit        which captions a backbone's text encoder cuts
check             a data set looked through
check_rules       what can be wrong with captions and sizes
refusals          what a build refuses about tasks and their photos
pictures          its image files, and those that are alike
near_duplicates   perceptual hashes, and every pair of them that is close
overlaps          photos that several tasks share
"""
