"""The mathematics of LoRA, independent of files and plugins.

layout      sites and layouts: an adapter as P parameters
algebra     SVD, compression, distances, means and unions of updates B A through their factors
gauge       a common gauge for all adapters of a pack
coordinates adapters as inputs of a network: scaled, or projected onto their span
prior       a sentence's prior over adapters (Eq. 6-8), and the likelihood of a sample
projection  the last linear map of an image encoder as a site
attention   finds q, k and v in a torch module and runs it with T adapters at once
removal     the closed form that removes what the candidates of a task share
"""
