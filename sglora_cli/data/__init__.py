"""Tasks, photos and captions.

description       task descriptions: sentences, weights, files, photos
ahead             read, decode and prepare photos in threads
encode            batched model calls, with and without adapters
photo_store       vectors of photos by content, in one file of the user cache
embeddings        cached embeddings of photos, with and without an adapter
features          outputs of the frozen parts, cached by content; mirrored photos
caption_file      captions.jsonl and caption files of other programs
caption_text      prompts, cleaned answers, rules for accepting captions
caption_writer    write captions with a captioner or take them from a file
caption_cost      estimate the cost of captions before a model is loaded
caption_target    the file that captions are appended to
text_limit        find captions that a backbone's text encoder truncates
check             check a data set
check_rules       rules for captions and sizes
refusals          what a build refuses about tasks and their photos
pictures          image files of a data set, duplicates and near-duplicates
near_duplicates   perceptual hashes and all pairs within a distance
overlaps          photos that several tasks share
"""
