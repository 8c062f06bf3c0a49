"""The mathematics of LoRA: factors, gauge, prior. It knows no file and no plugin.

layout      sites and layouts: an adapter as P numbers
algebra     SVD, compression, distances, means and unions of updates B A through their factors
gauge       one gauge for all adapters of a pack
coordinates adapters in the numbers that a network sees: scaled, or projected on their span
prior       a sentence's prior over adapters (Eq. 6-8), and how likely a sample is
projection  the last linear map of an image encoder as a site
attention   finds q, k and v in a torch module and runs it with T adapters at once
"""
